"""Intervals of one run over its inputs: from the captions that it kept, where these give its scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lockdec.report.over_inputs import JUDGED, OverInputs, over_inputs
from lockdec.report.results import read
from tests.report.runs import captioned_run

ROWS: list[dict[str, Any]] = [
    {
        "id": f"{number}",
        "references": [f"a red hat and a blue coat {number % 3}"],
        "caption": f"a red hat and a {'blue coat' if number % 2 else 'hat'} {number % 3}",
        "prior": "a hat",
        "shuffled": "a blue coat",
    }
    for number in range(40)
]


def test_every_metric_and_every_gap_has_an_interval(tmp_path: Path) -> None:
    (run,) = read([captioned_run(tmp_path / "run", ROWS)]).runs
    found = over_inputs(run)
    assert set(found.scores) == set(JUDGED)
    assert set(found.gaps) == {"prior", "shuffled"}
    half = 1.959964 * 0.5 * (40 / 39) ** 0.5 / 40**0.5  # half of the captions are exact
    exact = found.scores["exact"]
    assert (exact.low, exact.high) == pytest.approx((0.5 - half, 0.5 + half))
    for name in JUDGED:
        gap = found.gaps["prior"][name]
        assert gap.mean == (run.number(f"metrics.{name}") or 0) - (run.number(f"controls.prior.{name}") or 0)
        assert gap.low is not None
        assert gap.low < gap.mean
    assert set(found.verdicts["prior"].values()) == {"above"}


def test_scores_that_the_kept_captions_do_not_give_are_left_out(tmp_path: Path) -> None:
    """The control is an average over more captions than the run kept, and one metric was measured otherwise."""
    folder = captioned_run(tmp_path / "run", ROWS)
    content = json.loads((folder / "result.json").read_text())
    content["controls"]["shuffled"] = {name: value / 2 for name, value in content["controls"]["shuffled"].items()}
    content["metrics"]["rouge_l"] += 0.01
    (folder / "result.json").write_text(json.dumps(content))
    (run,) = read([folder]).runs
    found = over_inputs(run)
    assert 0.0 in content["controls"]["shuffled"].values(), "which is half of itself, and says nothing of the others"
    assert set(found.gaps) == set(found.verdicts) == {"prior"}
    assert set(found.scores) == set(found.gaps["prior"]) == set(JUDGED) - {"rouge_l"}


@pytest.mark.parametrize("rows", [ROWS[:20], [{**row, "references": []} for row in ROWS], []])
def test_few_inputs_or_none_with_references_give_nothing(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    folder = captioned_run(tmp_path / "run", ROWS)
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run,) = read([folder]).runs
    assert over_inputs(run) == OverInputs()


def test_captions_that_equal_a_controls_are_not_shown_to_differ(tmp_path: Path) -> None:
    rows = [row | {"prior": row["caption"], "locked": ""} for row in ROWS]
    (run,) = read([captioned_run(tmp_path / "run", rows)]).runs
    found = over_inputs(run)
    assert set(found.verdicts["prior"].values()) == {"either"}
    assert set(found.verdicts["locked"].values()) == {"above"}
