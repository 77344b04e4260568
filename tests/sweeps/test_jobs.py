"""A cell: run once, kept when it is finished, and run again when it failed or another config is wanted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lockdec.errors import ConfigError
from lockdec.pipeline.keys import same_results
from lockdec.store.reading import RESULT
from lockdec.sweeps.folders import make_folder, remove_unused
from lockdec.sweeps.jobs import finished_cell, objective, run_job
from lockdec.sweeps.plan import plan
from tests.conftest import TinyRun
from tests.sweeps.sweeping import tiny_cell


def test_a_finished_cell_stays_finished_when_options_without_effect_change(tiny: TinyRun, tmp_path: Path) -> None:
    run_job(tiny_cell(tiny), tmp_path / "0", [], "0")
    irrelevant = ("trainer.threads=2", "logger.kinds=[csv]", "dry_run=true", "name=other")
    cells = [(tmp_path / "0", tiny_cell(tiny, *more)) for more in (irrelevant, ("seed=9",))]
    assert plan(cells).finished == 1
    assert same_results(OmegaConf.load(tmp_path / "0" / "config.yaml"), tiny_cell(tiny, *irrelevant))


def test_a_failed_or_interrupted_cell_is_not_finished(tiny: TinyRun, tmp_path: Path) -> None:
    config, folder = tiny_cell(tiny), tmp_path / "0"
    run_job(config, folder, [], "0")
    path = folder / RESULT
    result = json.loads(path.read_text())
    assert finished_cell(config, folder) == result
    for status in ("failed", "interrupted", "pruned"):
        path.write_text(json.dumps(result | {"status": status}))
        assert finished_cell(config, folder) is None
    path.write_text('{"status": "ok", ')
    assert finished_cell(config, folder) is None


def test_a_cell_that_fails_is_recorded_and_returns_no_objective(tiny: TinyRun, tmp_path: Path) -> None:
    value = run_job(tiny_cell(tiny, "fewshot.shots=5000"), tmp_path / "0", [], "0")
    assert math.isnan(value)
    result = json.loads((tmp_path / "0" / RESULT).read_text())
    assert (result["status"], result["error"]) == (
        "failed",
        "fewshot.shots=5000: there are only 120 training drawings",
    )


def test_the_objective_is_a_metric_of_the_result() -> None:
    assert objective({"metrics": {"token_f1": 0.5}}, "token_f1") == 0.5
    assert math.isnan(objective({}, "token_f1")), "a pipeline without evaluation has none"
    with pytest.raises(ConfigError, match=r"objective=f1 is not one of: token_f1"):
        objective({"metrics": {"token_f1": 0.5}}, "f1")


@pytest.mark.parametrize("more", [False, True], ids=["alone", "beside something else"])
def test_a_start_that_is_refused_once_data_is_read_leaves_nothing(more: bool, tiny: TinyRun, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "runs" / "x" / "now", alone=True)
    if more:
        (folder / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"fewshot\.shots=5000"):
        run_job(tiny_cell(tiny, "fewshot.shots=5000"), folder, [])
    remove_unused()
    assert list(tmp_path.iterdir()) == ([tmp_path / "runs"] if more else [])
    assert (folder / "result.json").exists() == more
