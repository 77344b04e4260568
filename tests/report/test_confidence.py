"""What the report says of confidence: both figures from the rows that a run kept, and none where they say nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lockdec.report.confidence import LEAST_INPUTS, PARTS, confidence, reliability, risk
from lockdec.report.figures import Figure
from lockdec.report.results import read
from tests.report.runs import captioned_run


def rows(count: int, sure: float | None = 0.5) -> list[dict[str, Any]]:
    """Every second caption is right; `sure` is the confidence of all."""
    found: list[dict[str, Any]] = [
        {"id": f"{place}", "references": ["red cat"], "caption": "red cat" if place % 2 else "blue dog"}
        for place in range(count)
    ]
    return found if sure is None else [row | {"confidence": sure} for row in found]


def figures_of(folder: Path, kept: list[dict[str, Any]]) -> list[Figure]:
    captioned_run(folder, kept)
    [run] = read([folder]).runs
    return confidence(run)


def test_a_run_has_both_figures(tmp_path: Path) -> None:
    found = figures_of(tmp_path / "run", rows(LEAST_INPUTS))
    assert [figure.id for figure in found] == ["reliability", "risk-coverage"]


@pytest.mark.parametrize(
    "kept",
    [
        rows(LEAST_INPUTS - 1),
        rows(LEAST_INPUTS, None),  # of an earlier release
        [*rows(LEAST_INPUTS), *rows(1, None)],
        [*rows(LEAST_INPUTS), *rows(1, 1.5)],
        [*rows(LEAST_INPUTS), rows(1)[0] | {"confidence": "high"}],
    ],
    ids=["few", "none", "one without", "no probability", "no number"],
)
def test_captions_without_their_confidence_give_none(kept: list[dict[str, Any]], tmp_path: Path) -> None:
    assert figures_of(tmp_path / "run", kept) == []


def test_reliability_compares_means_of_tenths() -> None:
    points = [(1 - place / 200, 1.0 if place < 100 else 0.5) for place in range(200)]
    measured = reliability(points).traces[0]
    assert measured["x"] == pytest.approx([1 - (20 * part + 9.5) / 200 for part in range(PARTS)], abs=1e-4)
    assert measured["y"] == [1.0] * 5 + [0.5] * 5
    assert measured["error_y"]["array"] == [None] * PARTS, "all alike in each tenth"
    assert "they are 0.247 off" in reliability(points).caption  # 0.2475, in binary a little less


def test_risk_is_the_mean_error_of_what_is_kept() -> None:
    points = [(0.9, 0.5), (0.8, 1.0), (0.7, 0.0), (0.6, 0.5)]
    curve, best, any_order = risk(points).traces
    assert curve["x"] == best["x"] == [0.25, 0.5, 0.75, 1.0]
    assert curve["y"] == pytest.approx([0.5, 0.25, 0.5, 0.5])
    assert best["y"] == pytest.approx([0.0, 0.25, 1 / 3, 0.5], abs=1e-4)
    assert any_order["y"] == [0.5, 0.5]
