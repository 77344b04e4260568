"""Learning curves as a picture, from a stage's metrics.csv."""

from __future__ import annotations

import csv
from pathlib import Path

_PANELS = (("loss", "loss (nats per token)"), ("accuracy", "share of correct tokens"))


def draw_curves(table: Path, picture: Path, stage: str) -> None:
    """Write a PNG: loss and accuracy over the steps, in training and on the validation split.

    Args:
        table: metrics.csv, with columns `step`, `<stage>/loss`, `<stage>/val_loss` and the same for accuracy.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (metric, label) in zip(figure.subplots(1, 2), _PANELS, strict=True):
        for prefix, name, style in (("", "training", {"alpha": 0.8}), ("val_", "validation", {"marker": "o"})):
            points = [
                (int(row["step"]), float(value)) for row in rows if (value := row.get(f"{stage}/{prefix}{metric}"))
            ]
            axes.plot([step for step, _ in points], [value for _, value in points], label=name, **style)
        axes.set(xlabel="step", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(picture, dpi=110, metadata={"Software": None})
