"""Sweeps as a user starts them: what a dry run says, the launchers, pairs, and going on after an interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from lockdec.config.schema import checked, config_folder, register
from lockdec.pipeline.keys import decisive
from lockdec.store import METADATA
from lockdec.store.reading import MADE_BEFORE, RESULT
from lockdec.sweeps.callback import beside_each_other_here, composed_cells
from lockdec.sweeps.jobs import run_job
from lockdec.sweeps.plan import leaves, likely_seconds, plan
from lockdec.sweeps.shared import in_common, make_shared
from tests.conftest import TinyRun, composed

SHARED = ("pretrain", "attach")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lockdec.run", "-m", "debug=tiny", "sweep_name=s", *arguments]


def sweep(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=cwd, env=os.environ, capture_output=True, text=True, timeout=300, check=False
    )


def results(cwd: Path) -> dict[str, dict[str, Any]]:
    found = sorted((cwd / "outputs" / "sweeps" / "s").glob(f"*/{RESULT}"))
    return {path.parent.name: json.loads(path.read_text()) for path in found}


def made(cells: dict[str, dict[str, Any]], stage: str) -> int:
    """How many cells made this stage instead of reusing it."""
    return sum(not cell["stages"][stage]["reused"] for cell in cells.values() if cell["stages"])


def tiny_cell(tiny: TinyRun, *overrides: str) -> Any:
    return composed("debug=tiny", f"paths.outputs={tiny.outputs}", *overrides)


def test_a_dry_run_knows_what_is_made_and_what_is_reused(tiny: TinyRun) -> None:
    """Three cells: as the tiny run, of other sizes (twice the same), and one that cannot work."""
    sizes = ("cross_attention.d_k=5", "cross_attention.d_v=3", "finetune.steps=11")  # of no other test
    overrides = [(), sizes, sizes, ("fewshot.shots=5000",)]
    found = plan([(None, tiny_cell(tiny, *one)) for one in overrides], at_once=2)
    counts = {name: (stage.made, stage.reused) for name, stage in found.stages.items()}
    assert counts == dict.fromkeys(SHARED, (0, 3)) | dict.fromkeys(("unlock", "finetune", "evaluate"), (1, 2))
    assert (found.cells, found.finished) == (4, 0)
    assert found.refused == {"3": "fewshot.shots=5000: there are only 120 training drawings"}
    known = [
        json.loads(path.read_text())["seconds"]
        for stage in ("unlock", "finetune", "evaluate")
        for path in tiny.outputs.glob(f"stages/{stage}/*/{METADATA}")
    ]
    assert 0 < found.seconds <= sum(known)
    assert found.unknown == []


def test_a_dry_run_says_when_nothing_is_known(tmp_path: Path) -> None:
    found = plan([(None, composed("debug=tiny", f"paths.outputs={tmp_path / 'no'}"))])
    assert found.unknown == ["pretrain", "attach", "unlock", "finetune", "evaluate"]
    assert list(tmp_path.iterdir()) == []


def test_a_finished_cell_counts_as_finished_whatever_changes_no_result(tiny: TinyRun, tmp_path: Path) -> None:
    run_job(tiny_cell(tiny), tmp_path / "0", [], sweeping=True)
    irrelevant = ("trainer.threads=2", "logger.kinds=[csv]", "dry_run=true", "name=other")
    cells = [(tmp_path / "0", tiny_cell(tiny, *more)) for more in (irrelevant, ("seed=9",))]
    assert plan(cells).finished == 1
    assert decisive(tiny_cell(tiny, *irrelevant)) == decisive(OmegaConf.load(tmp_path / "0" / "config.yaml"))


def test_time_is_judged_by_what_differs_least() -> None:
    known = [
        (leaves({"fit": {"steps": 10}, "d": 1}), 1.0),
        (leaves({"fit": {"steps": 1000}, "d": 1}), 90.0),
        (leaves({"fit": {"steps": 1000}, "d": 2}), 110.0),
    ]
    assert likely_seconds({"fit": {"steps": 1000}, "d": 4}, known) == 100.0
    assert likely_seconds({"fit": {"steps": 10}, "d": 4}, known) == 1.0
    assert likely_seconds({}, []) is None


def test_a_dry_run_composes_each_cell_as_hydra_does() -> None:
    cells = [
        ["cross_attention.d_k=2", "seed=1"],
        ["cross_attention=tied_2", "seed=1"],
        ["cross_attention=tied_2", "cross_attention.d_v=3", "data.split=random"],
        ["pair={heads:8,d:2}", "cross_attention.heads=${pair.heads}", "fewshot={shots:4}"],
        ["~callbacks", "encoder=vae", "~stages.attach.batch_size", "data=tunes", "+data.more=1", "seed=2"],
        ["seed=0"],
    ]
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("config", overrides=["debug=tiny"], return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
        found = list(composed_cells(config, loader, cells))
        with pytest.raises(ConfigCompositionException):
            list(composed_cells(config, loader, [["cross_attention.d_k=2", "cross_attention.dk=2"]]))
        for cell, composed_once in zip(cells, found, strict=True):
            alone = loader.load_sweep_config(config, cell)
            assert isinstance(alone, DictConfig)
            wanted = OmegaConf.to_container(
                OmegaConf.masked_copy(alone, [str(name) for name in alone if name != "hydra"])
            )
            assert OmegaConf.to_container(composed_once) == wanted
    assert found[0].cross_attention.d_k == 2
    assert found[-1].cross_attention.d_k != 2


def test_the_command_for_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    answer = sweep("fewshot.shots=8,5000", "dry_run=true", cwd=tmp_path)
    assert answer.returncode == 1
    assert "2 cells: 0 finished, 1 to run, 1 cannot work" in answer.stdout, answer.stderr
    assert "cell 1 cannot work: fewshot.shots=5000: there are only 120 training drawings" in answer.stdout
    assert "nothing in the store" in answer.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "launcher",
    [
        ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        ("hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2"),
    ],
)
def test_a_launcher_makes_shared_stages_once_and_keeps_what_failed(launcher: tuple[str, str], tmp_path: Path) -> None:
    """Pairs of heads and dimension side by side; with 5000 shots a cell cannot work."""
    pairs = ("pair={heads:1,d:4,n:8},{heads:2,d:2,n:5000},{heads:2,d:2,n:8}", "cross_attention.heads=${pair.heads}")
    answer = sweep(*launcher, *pairs, "cross_attention.d_k=${pair.d}", "fewshot.shots=${pair.n}", cwd=tmp_path)
    cells = results(tmp_path)
    assert [cell["status"] for cell in cells.values()] == ["ok", "failed", "ok"], answer.stderr
    assert [made(cells, stage) for stage in (*SHARED, "finetune")] == [0, 0, 2]
    before = json.loads((tmp_path / "outputs" / "sweeps" / "s" / MADE_BEFORE).read_text())["stages"]
    assert {stage: entry["key"] for stage, entry in before.items()} == {
        stage: cells["0"]["stages"][stage]["key"] for stage in SHARED
    }
    assert f"made first, for all 2 cells: {', '.join(SHARED)}" in answer.stdout
    assert "Learning curve of pretrain" in (tmp_path / "outputs" / "sweeps" / "s" / "report.html").read_text()
    sizes = [(c["cross_attention"]["heads"], c["cross_attention"]["d_k"]) for c in cells.values() if c["stages"]]
    assert sizes == [(1, 4), (2, 2)]
    assert answer.returncode == 1
    assert "cell 1 failed: fewshot.shots=5000" in answer.stdout
    for number in cells:  # one thread for each cell that runs beside others
        config = OmegaConf.load(tmp_path / "outputs" / "sweeps" / "s" / number / "config.yaml")
        assert config.trainer.threads == 1


@pytest.mark.parametrize(
    ("overrides", "answer"),
    [
        (("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), True),
        (("hydra/launcher=joblib", "hydra.launcher.n_jobs=1"), False),
        (("hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2"), True),
        (("hydra/launcher=submitit_slurm", "hydra.sweeper.max_batch_size=2"), False),
        (("hydra/launcher=ray", "hydra.launcher.num_cpus=2"), False),
        (("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "trainer.strategy=ddp"), False),
        ((), False),
    ],
)
def test_only_cells_beside_each_other_on_this_machine_get_something_made_first(
    overrides: tuple[str, ...], answer: bool
) -> None:
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    assert beside_each_other_here(config) is answer


def test_cells_share_what_all_of_them_need_that_can_work(tmp_path: Path) -> None:
    def shared(*cells: tuple[str, ...]) -> tuple[int, list[str]] | None:
        configs = [composed("debug=tiny", f"paths.outputs={tmp_path}", *cell) for cell in cells]
        common = in_common(iter(configs), len(configs), tmp_path / "sweep")
        return (common.cells, list(common.places)) if common else None

    wide, narrow, broken = ("cross_attention.d_k=4",), ("cross_attention.d_k=1",), ("fewshot.shots=5000",)
    assert shared(wide, narrow) == (2, [*SHARED])
    assert shared(broken, wide, narrow) == (2, [*SHARED])
    assert shared(wide, broken) is None
    assert shared(wide, (*wide, "finetune.steps=11")) == (2, [*SHARED, "unlock"])
    assert shared(wide, (*narrow, "pretrain.steps=21")) == (2, ["attach"])
    assert shared(wide, (*narrow, "pretrain.steps=21", "data.limit=150")) is None
    assert shared(wide, (*narrow, f"paths.outputs={tmp_path / 'other'}")) is None
    assert list(tmp_path.iterdir()) == []


def test_nobody_looks_further_once_nothing_has_to_be_made(tiny: TinyRun, tmp_path: Path) -> None:
    """The first cell is finished; the second lacks stages of its own; the third shares only what is there with it."""
    run_job(tiny_cell(tiny), tmp_path / "0", [], sweeping=True)
    cells = iter([tiny_cell(tiny), *(tiny_cell(tiny, f"cross_attention.d_v={d_v}") for d_v in (5, 6, 7))])
    assert in_common(cells, 4, tmp_path) is None
    assert len(list(cells)) == 1


def test_what_cannot_be_made_first_is_left_to_the_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    cells = [composed("debug=tiny", f"paths.outputs={tmp_path / 'file'}", f"seed={seed}") for seed in (0, 1)]
    make_shared(cells, 2, tmp_path / "sweep", "s")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "  made first, for all 2 cells: pretrain, attach"
    assert said[1].startswith("  not made before the cells, which try it again: paths.outputs=")
    assert len(said) == 2


def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    """Killed while the second of two cells trains."""
    arguments = ("seed=0,1", "finetune.steps=100", "trainer.checkpoint_seconds=0")
    process = subprocess.Popen(command(*arguments), cwd=tmp_path, env=os.environ, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    second = tmp_path / "outputs" / "sweeps" / "s" / "1"
    while time.monotonic() < deadline and process.poll() is None:
        if second.is_dir() and list(tmp_path.glob("outputs/stages/finetune/*.unfinished/last.ckpt")):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(results(tmp_path)) == ["0"]
    first = (tmp_path / "outputs" / "sweeps" / "s" / "0" / RESULT).read_bytes()

    answer = sweep(*arguments, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "s: 1 of 2 cells done, 0 running, 0 failed" in answer.stdout
    assert [cell["status"] for cell in results(tmp_path).values()] == ["ok", "ok"]
    assert (tmp_path / "outputs" / "sweeps" / "s" / "0" / RESULT).read_bytes() == first
    assert made(results(tmp_path), "pretrain") == 1


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 32])
def test_tied_sizes_are_equal(size: int) -> None:
    config = checked(composed(f"cross_attention=tied_{size}")).cross_attention
    assert (config.d_q, config.d_k, config.d_v) == (size, size, size)
