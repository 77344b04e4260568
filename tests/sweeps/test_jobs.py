"""A cell: run once, kept when it is finished, and run again when it failed or another config is wanted."""

from __future__ import annotations

import json
import math
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from lockdec.config.building import Builder
from lockdec.data.openmoji import OpenMoji
from lockdec.encoders.efficientnet import EfficientNetLite0
from lockdec.errors import ConfigError
from lockdec.store.reading import RESULT
from lockdec.sweeps import jobs
from lockdec.sweeps.folders import make_folder, remove_unused
from lockdec.sweeps.jobs import objective, run_job
from tests.conftest import TinyRun
from tests.sweeps.sweeping import tiny_cell


def test_a_cell_that_fails_is_recorded_and_returns_no_objective(tiny: TinyRun, tmp_path: Path) -> None:
    value = run_job(tiny_cell(tiny, "fewshot.shots=5000"), tmp_path / "0", [], "0")
    assert math.isnan(value)
    result = json.loads((tmp_path / "0" / RESULT).read_text())
    assert (result["status"], result["error"]) == (
        "failed",
        "fewshot.shots=5000: there are only 120 training inputs",
    )


def test_an_error_about_a_key_that_is_named_like_a_secret_keeps_its_reason(tiny: TinyRun, tmp_path: Path) -> None:
    run_job(tiny_cell(tiny, "+evaluate.password=Tr0ub4dor-x91"), tmp_path / "0", [], "0")
    error = json.loads((tmp_path / "0" / RESULT).read_text())["error"]
    assert error.startswith("evaluate.password - no such key (allowed: strategy, "), error


def test_cells_of_a_process_read_the_data_and_build_the_encoder_once(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_builder", Builder())  # as in a new process
    built: list[str] = []
    for kind in (OpenMoji, EfficientNetLite0):

        @wraps(kind.__init__)
        def counted(self: Any, *arguments: Any, theirs: Any = kind.__init__, **options: Any) -> None:
            built.append(type(self).__name__)
            theirs(self, *arguments, **options)

        monkeypatch.setattr(kind, "__init__", counted)
    for number in (0, 1):
        place = f"paths.outputs={tmp_path / 'outputs'}"
        cell = tiny_cell(tiny, place, "data.limit=40", "fewshot.shots=8", "pipeline.order=[attach]", f"seed={number}")
        assert math.isnan(run_job(cell, tmp_path / str(number), [], str(number)))
        assert json.loads((tmp_path / str(number) / RESULT).read_text())["status"] == "ok"
    assert sorted(built) == ["EfficientNetLite0", "OpenMoji"]


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
