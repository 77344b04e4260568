"""Learning curves as a picture: every measured point is drawn, whatever else the table holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.axes
import numpy as np
import pytest
from PIL import Image

from lockdec.tracking.curves import draw_curves

TABLE = """step,translate/accuracy,translate/learning_rate,translate/loss,translate/val_accuracy,translate/val_loss
10,0.25,0.1,3.5,,
20,0.5,0.1,2.5,0.375,2.75
30,0.75,0.1,1.5,,
"""


def test_each_panel_has_the_points_that_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[tuple[str, str], list[tuple[float, float]]] = {}
    legend = matplotlib.axes.Axes.legend

    def recorded(axes: matplotlib.axes.Axes, **options: Any) -> Any:
        for line in axes.lines:
            points = np.asarray(line.get_xydata()).tolist()
            drawn[axes.get_ylabel(), str(line.get_label())] = [(x, y) for x, y in points]
        return legend(axes, **options)

    monkeypatch.setattr(matplotlib.axes.Axes, "legend", recorded)
    (tmp_path / "metrics.csv").write_text(TABLE)
    draw_curves(tmp_path / "metrics.csv", tmp_path / "curves.png", "translate")
    assert drawn == {
        ("loss (nats per token)", "training"): [(10, 3.5), (20, 2.5), (30, 1.5)],
        ("loss (nats per token)", "validation"): [(20, 2.75)],
        ("share of correct tokens", "training"): [(10, 0.25), (20, 0.5), (30, 0.75)],
        ("share of correct tokens", "validation"): [(20, 0.375)],
    }
    assert Image.open(tmp_path / "curves.png").size == (990, 396)


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(TABLE)
    for name in ("a.png", "b.png"):
        draw_curves(tmp_path / "metrics.csv", tmp_path / name, "translate")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
