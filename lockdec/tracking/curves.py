"""Learning curves: written as a table, and drawn from it."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from lockdec.store.writing import write_text

_PANELS = (("loss", "loss (nats per token)"), ("accuracy", "share of correct tokens"))

SAVE_EVERY = 5.0  # seconds between two writes of a table that grows


def write_table(path: Path, rows: Mapping[int, Mapping[str, float]]) -> None:
    """Write a curve as CSV, complete or not at all: a row for each logged step, with the step in the first column.

    Args:
        rows: the metrics at each step.
    """
    table = io.StringIO()
    writer = csv.DictWriter(table, ["step", *sorted({name for row in rows.values() for name in row})])
    writer.writeheader()
    writer.writerows({"step": step, **row} for step, row in sorted(rows.items()))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, table.getvalue())


class TableLogger(Logger):
    """Writes all that is logged of a stage to a CSV file, while it trains.

    The checkpoint of a stage keeps the rows, so that the table of a resumed stage begins at the start.

    Attributes:
        rows: the metrics by the number of steps done.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: dict[int, dict[str, float]] = {}
        self._saved_at = -math.inf

    @property
    def name(self) -> str:
        """The stage."""
        return self.path.parent.name

    @property
    def version(self) -> str:
        """There is only one."""
        return ""

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Nothing: they are in config.yaml."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add metrics to the row of a step, which Lightning counts from 0; without a step, to the last row."""
        row = self.rows.setdefault(max(self.rows, default=0) if step is None else step + 1, {})
        row |= {name: float(value) for name, value in metrics.items() if name != "epoch"}

    def save(self) -> None:
        """Write the table, if that was not done just before; Lightning calls this whenever it has logged something."""
        if self.rows and time.monotonic() - self._saved_at >= SAVE_EVERY:
            write_table(self.path, self.rows)
            self._saved_at = time.monotonic()

    def finalize(self, status: str) -> None:
        """Write the table at the end of the stage."""
        if self.rows:
            write_table(self.path, self.rows)


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
