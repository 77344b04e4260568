"""A cell is finished if an earlier attempt was and its config gives the same results; mostly that needs no torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lockdec.pipeline.keys import same_results
from lockdec.pipeline.running import run
from lockdec.store.reading import RESULT
from lockdec.sweeps.finished import declared_version, finished_cell, surely_finished
from lockdec.sweeps.jobs import run_job
from lockdec.sweeps.plan import plan
from tests.conftest import TinyRun, composed
from tests.data.fresh_process import output
from tests.stages.declared import STAGES
from tests.sweeps.sweeping import tiny_cell


def test_a_finished_cell_stays_finished_when_options_without_effect_change(tiny: TinyRun, tmp_path: Path) -> None:
    run_job(tiny_cell(tiny), tmp_path / "0", [], "0")
    assert surely_finished(tiny_cell(tiny), tmp_path / "0")
    assert not surely_finished(tiny_cell(tiny, "trainer.threads=2"), tmp_path / "0"), "this takes a closer look"
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
    assert not surely_finished(config, folder)


@pytest.mark.parametrize(("more", "stays"), [("cross_attention.d_k=3", False), ("trainer.checkpoint_seconds=77", True)])
def test_a_run_that_is_killed_leaves_no_result_of_other_settings(
    more: str, stays: bool, tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor appended curves; where nothing but the way to the result has changed, both are its own."""
    folder, config = tmp_path / "0", tiny_cell(tiny, more)
    run_job(tiny_cell(tiny), folder, [], "0")
    curves = folder / "tensorboard" / "finetune"
    curves.mkdir(parents=True)

    def killed(path: Path, value: object) -> None:
        assert path == folder / RESULT

    monkeypatch.setattr("lockdec.pipeline.running.write_json", killed)
    run(config, folder, [])
    assert (folder / RESULT).exists() is stays
    assert curves.exists() is stays
    assert (finished_cell(config, folder) is not None) is stays


def test_a_cell_that_older_code_has_made_is_not_finished(tiny: TinyRun, tmp_path: Path) -> None:
    config, folder = tiny_cell(tiny), tmp_path / "0"
    run_job(config, folder, [], "0")
    result = json.loads((folder / RESULT).read_text())
    result["stages"]["evaluate"]["version"] -= 1
    (folder / RESULT).write_text(json.dumps(result))
    assert not surely_finished(config, folder)
    assert finished_cell(config, folder) is None
    for stage in result["stages"].values():  # as before there were versions in it
        del stage["version"]
    (folder / RESULT).write_text(json.dumps(result))
    assert not surely_finished(config, folder)
    assert finished_cell(config, folder) == result


def test_the_version_in_the_source_of_a_stage_is_that_of_its_class() -> None:
    assert {stage: declared_version(f"{stage.__module__}.{stage.__name__}") for stage in STAGES} == {
        stage: stage.version for stage in STAGES
    }
    assert declared_version("lengths.Lengths") is None


def test_a_finished_sweep_starts_no_cell_and_imports_no_torch(tiny: TinyRun, tmp_path: Path) -> None:
    places = (f"paths.outputs={tmp_path}", f"paths.stores=[{tiny.own}]")
    arguments = ["debug=tiny", *places, "sweep_name=done", "finetune.steps=2"]
    folder = tmp_path / "sweeps" / "done"
    for number in (0, 1):
        run_job(composed(*arguments, f"seed={number}"), folder / str(number), [], str(number))
    before = [(folder / number / RESULT).read_bytes() for number in "01"]
    command = ["lockdec.run", "-m", *arguments, "seed=0,1"]
    code = (
        f"import sys, lockdec.run; sys.argv = {command}; lockdec.run.main(); "
        "print({'torch', 'lightning'} & set(sys.modules))"
    )
    lines = output(code, 1).splitlines()
    assert "2 of 2 cells done" in " ".join(lines)
    assert lines[-1] == "set()"
    assert [(folder / number / RESULT).read_bytes() for number in "01"] == before
    assert (folder / "report.html").is_file()
