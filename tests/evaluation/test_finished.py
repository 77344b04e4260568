"""A finished run is found, verified and opened again; anything else is refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

import lockdec
from lockdec.errors import ConfigError, LockdecError, StoreError
from lockdec.evaluation.finished import find_run, open_captioner
from lockdec.export import export
from lockdec.pipeline.assembling import Assembly
from lockdec.store.writing import write_json
from tests.conftest import TinyRun


def set_encoder(folder: Path, **changes: str) -> None:
    """Change what a run's config says of its encoder."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["stages"]["attach"]["encoder"] |= changes
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def spoiled(run: TinyRun, folder: Path, **result: object) -> Path:
    """A copy of the run beside its store, with another result.json."""
    copy = run.outputs / "runs" / folder.name
    shutil.copytree(run.folder, copy)
    write_json(copy / "result.json", {**run.result, **result})
    return copy


def finished(folder: Path, value: object, split: str = "val", **result: object) -> Path:
    """A folder that looks like that of a finished run whose objective has this value."""
    folder.mkdir(parents=True)
    metrics = {"loss": value, "token_f1": value}
    write_json(
        folder / "result.json", {"schema": 2, "status": "ok", "metrics": metrics, "stages": {"finetune": {}}} | result
    )
    (folder / "config.yaml").write_text(f"objective: {folder.parent.name}\nevaluate: {{split: {split}}}\n")
    return folder


@pytest.mark.parametrize(("objective", "best"), [("token_f1", "2"), ("loss", "10")])
def test_of_a_sweep_the_best_cell_by_its_objective_is_taken(objective: str, best: str, tmp_path: Path) -> None:
    values = {"0": 0.3, "2": 0.5, "10": 0.1, "3": None, "4": "0.9"}
    for cell, value in values.items():
        finished(tmp_path / objective / cell, value)
    finished(tmp_path / objective / "5", 0.9, status="failed")
    run = find_run(tmp_path / objective)
    assert run.folder.name == best
    assert run.chosen == f"cell {best} of 6, the best by {objective} on val ({values[best]:.3f})"


def test_of_several_runs_the_newest_that_ended_well_is_taken(tmp_path: Path) -> None:
    for name, end, status in (("b", "2031", "ok"), ("a", "2032", "ok"), ("c", "2033", "failed")):
        finished(tmp_path / "runs" / name, 0.5, finished=end, status=status)
    run = find_run(tmp_path / "runs")
    assert (run.folder.name, run.chosen) == ("a", "the newest of 2 finished runs")
    finished(tmp_path / "runs" / "d", None, finished="2034", stages={"attach": {}, "probe": {}})
    assert find_run(tmp_path / "runs").folder.name == "a", "a probe captions nothing"
    finished(tmp_path / "probes" / "0", None, stages={"attach": {}, "probe": {}})
    with pytest.raises(StoreError, match="the finished run below it has no stage finetune, which"):
        find_run(tmp_path / "probes")
    with pytest.raises(StoreError, match=r"no result.json .* below; name one .* that hold runs: probes, runs$"):
        find_run(tmp_path)


def test_a_run_captions_new_inputs_as_it_did(tiny: TinyRun, assembled: Assembly) -> None:
    data = assembled.stages["evaluate"].data  # type: ignore[attr-defined]
    lines = (tiny.folder / "captions.jsonl").read_text().splitlines()
    found = lockdec.load(tiny.folder).caption(list(data.inputs(data.splits["test"])))
    assert [caption.text for caption in found] == [json.loads(line)["caption"] for line in lines]


def test_a_run_that_is_not_whole_is_refused_in_one_line(tiny: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such folder; name the folder of a run"):
        find_run(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"no result.json of a finished run here"):
        find_run(tmp_path)
    with pytest.raises(StoreError, match=r"not a finished run \(its status is failed\)"):
        find_run(spoiled(tiny, tmp_path / "failed", status="failed"))
    for name, stages in (("none", {}), ("path", {"finetune": {"key": "../../../../etc"}}), ("list", [])):
        run = find_run(spoiled(tiny, tmp_path / name, stages=stages))
        with pytest.raises(StoreError, match="it has no stage finetune, which captioning needs"):
            open_captioner(run)
    absent = {stage: {"key": "0" * 64} for stage in ("pretrain", "attach", "finetune")}
    with pytest.raises(StoreError, match=r"artifact stages/finetune/000000000000\.\.\. is missing; searched"):
        open_captioner(find_run(spoiled(tiny, tmp_path / "absent", stages=absent)))


def test_a_damaged_artifact_is_refused(tiny: TinyRun, tmp_path: Path) -> None:
    export(tiny.folder, tmp_path / "out")
    (weights,) = (tmp_path / "out").rglob("cross_attention.safetensors")
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StoreError, match=r"cross_attention\.safetensors: missing or damaged"):
        open_captioner(find_run(tmp_path / "out"))


@pytest.mark.parametrize("target", ["os.system", "lockdec.caption.main", "lockdec.data.folder.Folder"])
def test_a_strangers_config_builds_no_more_than_encoders(target: str, tiny: TinyRun, tmp_path: Path) -> None:
    export(tiny.folder, tmp_path / "out")
    set_encoder(tmp_path / "out", _target_=target)
    with pytest.raises(ConfigError, match="is not trusted"):
        open_captioner(find_run(tmp_path / "out"))


def test_a_path_in_a_strangers_config_stays_in_the_folder(tiny: TinyRun, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny.folder, run)
    set_encoder(run, path="run:../../secret")
    with pytest.raises(StoreError, match="does not name a file in it"):
        open_captioner(find_run(run))


@pytest.mark.parametrize(
    ("name", "value"), [("max_new_tokens", 10**9), ("beams", 10**9), ("candidates", 10**9), ("candidates", 1001)]
)
def test_a_strangers_config_cannot_ask_for_work_without_end(
    name: str, value: int, tiny: TinyRun, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny.folder, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["evaluate"] |= {"strategy": "mbr", name: value}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(LockdecError, match=rf"evaluate\.{name}={value}: at most \d+$"):
        open_captioner(find_run(run))
