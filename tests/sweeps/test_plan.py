"""A dry run: how many cells, which stages they would make, and how long that takes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lockdec.store import METADATA
from lockdec.sweeps.plan import NEWEST, leaves, likely_seconds, plan, timings
from tests.conftest import TinyRun, composed
from tests.sweeps.sweeping import SHARED, cell_over


def test_a_dry_run_counts_what_would_be_made_and_what_reused(tiny: TinyRun, tmp_path: Path) -> None:
    """Three cells: as the tiny run, of other sizes (twice the same), and one that cannot run."""
    sizes = ("cross_attention.d_k=5", "cross_attention.d_v=3", "finetune.steps=11")
    overrides = [(), sizes, sizes, ("fewshot.shots=5000",)]
    found = plan([(None, cell_over(tiny, tmp_path, *one)) for one in overrides], at_once=2)
    counts = {name: (stage.made, stage.reused) for name, stage in found.stages.items()}
    assert counts == dict.fromkeys(SHARED, (0, 3)) | dict.fromkeys(("unlock", "finetune", "evaluate"), (1, 2))
    assert (found.cells, found.finished) == (4, 0)
    assert found.refused == {"3": "fewshot.shots=5000: there are only 120 training inputs"}
    known = [
        json.loads(path.read_text())["seconds"]
        for stage in ("unlock", "finetune", "evaluate")
        for path in tiny.own.glob(f"{stage}/*/{METADATA}")
    ]
    assert found.seconds == pytest.approx(sum(known) / 2)  # two cells at once
    assert found.unknown == []


def test_a_dry_run_with_an_empty_store_knows_no_time(tmp_path: Path) -> None:
    found = plan([(None, composed("debug=tiny", f"paths.outputs={tmp_path / 'no'}"))])
    assert found.unknown == ["pretrain", "attach", "unlock", "finetune", "prior", "evaluate"]
    assert list(tmp_path.iterdir()) == []


def test_time_is_estimated_from_the_most_similar_configs() -> None:
    known = [
        (leaves({"fit": {"steps": 10}, "d": 1}), 1.0),
        (leaves({"fit": {"steps": 1000}, "d": 1}), 90.0),
        (leaves({"fit": {"steps": 1000}, "d": 2}), 110.0),
    ]
    assert likely_seconds({"fit": {"steps": 1000}, "d": 4}, known) == 100.0
    assert likely_seconds({"fit": {"steps": 10}, "d": 4}, known) == 1.0
    assert likely_seconds({}, []) is None


def test_the_newest_artifacts_say_how_long_it_takes(tmp_path: Path) -> None:
    for number in range(NEWEST + 3):
        artifact = tmp_path / f"{number:03}" / METADATA
        artifact.parent.mkdir()
        artifact.write_text(json.dumps({"config": {"d": number}, "seconds": number}))
        os.utime(artifact, (number, number))
    assert [seconds for _, seconds in timings(tmp_path)] == list(range(NEWEST + 2, 2, -1))
