"""Whole sweeps as a user starts them: dry runs, launchers, failed cells, and a sweep that was killed."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from lockdec.store.reading import RESULT
from tests.faults.warm import Warm
from tests.sweeps.sweeping import TINY_SWEEP, made, require_made_first, results


def test_a_dry_run_from_the_command_line_writes_nothing(warm: Warm, tmp_path: Path) -> None:
    answer = warm.lockdec(*TINY_SWEEP, "fewshot.shots=8,5000", "dry_run=true", cwd=tmp_path)
    assert answer.returncode == 1
    assert "2 cells: 0 finished, 1 to run, 1 cannot run" in answer.stdout, answer.stderr
    assert "cell 1 cannot run: fewshot.shots=5000: there are only 48 training inputs" in answer.stdout
    assert "nothing in the store" in answer.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("evaluate.split=val,test", "evaluate.split=test: a search chooses by what it measures"),
        (
            "evaluate.split=test",
            "evaluate.split=test: a search chooses by what it measures, and the test split is to judge",
        ),
        ("hydra.sweeper.trials=two", "hydra.sweeper.trials=two must be a whole number of at least 1"),
        ("hydra.sweeper.trials=0", "hydra.sweeper.trials=0 must be a whole number of at least 1"),
        ("hydra.sweeper.jobs=0", "hydra.sweeper.jobs=0 must be a whole number of at least 1"),
        ("hydra.sweeper.seed=x", "hydra.sweeper.seed=x must be a whole number from 0 to "),
        ("hydra.sweeper.seed=4294967290", "hydra.sweeper.seed=4294967290 must be a whole number from 0 to "),
        ("hydra.sweeper.keep=150", "hydra.sweeper.keep=150 must be a number from 0 to 100"),
        ("hydra.sweeper.warmup=3", "hydra.sweeper.warmup=3: give values to its keys"),
        ("hydra.sweeper.objectives=abc", "hydra.sweeper.objectives=abc: give values to its keys"),
        ("hydra.sweeper.warmup.steps=-1", "hydra.sweeper.warmup.steps=-1 must be a whole number of at least 0"),
        (
            "hydra.sweeper.objectives={metrics.token_f1:up}",
            "hydra.sweeper.objectives.metrics.token_f1=up is not one of: maximize, minimize",
        ),
        ("finetune.steps=range(5,5)", "finetune.steps=range(5,5): nothing to choose from ("),
        ("finetune.state_noise=interval(1,0)", "finetune.state_noise=interval(1,0): nothing to choose from ("),
        ("finetune.steps=tag(log,interval(0,1))", "finetune.steps=tag(log,interval(0,1)): nothing to choose from ("),
    ],
)
def test_a_search_with_an_impossible_option_is_refused_in_one_line(
    option: str, message: str, warm: Warm, tmp_path: Path
) -> None:
    answer = warm.lockdec(*TINY_SWEEP, "hparams_search=optuna", option, cwd=tmp_path)
    assert answer.returncode == 1
    (line,) = answer.stderr.splitlines()
    assert line.startswith(f"lockdec: {message}")


def test_whatever_is_wrong_before_the_cells_ends_the_sweep(warm: Warm, tmp_path: Path) -> None:
    """Hydra would make a warning of an error in a callback, and run the cells."""
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=0")
    answer = warm.lockdec(*TINY_SWEEP, *launcher, "seed=0,1", "dry_run=true", cwd=tmp_path)
    assert answer.stderr.startswith("lockdec: hydra.launcher.n_jobs=0: give a number of cells side by side")
    assert answer.returncode == 1
    assert list(tmp_path.iterdir()) == []
    folder = tmp_path / "outputs" / "sweeps" / "s"
    folder.mkdir(parents=True)
    (folder / ".submitit").write_text("in the place of the folder of its pickles")
    answer = warm.lockdec(*TINY_SWEEP, "hydra/launcher=submitit_local", "seed=0,1", cwd=tmp_path)
    assert answer.returncode == 1
    assert not list(folder.glob(f"*/{RESULT}")), answer.stderr


def test_cells_one_after_the_other_make_what_they_share_themselves(warm: Warm, tmp_path: Path) -> None:
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=1")
    answer = warm.lockdec(*TINY_SWEEP, *launcher, "seed=0,1", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "made first" not in answer.stdout
    assert not (tmp_path / "outputs" / "sweeps" / "s" / "shared").exists()


def test_joblib_makes_shared_stages_once_and_keeps_failed_cells(warm: Warm, tmp_path: Path) -> None:
    """Pairs of heads and dimension side by side; with 5000 shots a cell cannot run.

    Submitit does the same in tests/faults/test_signals.py, and keeps a failed cell in tests/faults/test_secrets.py.
    """
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    pairs = ("pair={heads:1,d:4,n:8},{heads:2,d:2,n:5000},{heads:2,d:2,n:8}", "cross_attention.heads=${pair.heads}")
    answer = warm.lockdec(
        *TINY_SWEEP, *launcher, *pairs, "cross_attention.d_k=${pair.d}", "fewshot.shots=${pair.n}", cwd=tmp_path
    )
    cells = results(tmp_path)
    assert [cell["status"] for cell in cells.values()] == ["ok", "failed", "ok"], answer.stderr
    require_made_first(tmp_path / "outputs" / "sweeps" / "s", cells, answer.stdout)
    sizes = [(c["cross_attention"]["heads"], c["cross_attention"]["d_k"]) for c in cells.values() if c["stages"]]
    assert sizes == [(1, 4), (2, 2)]
    assert answer.returncode == 1
    assert "cell 1 failed: fewshot.shots=5000" in answer.stdout


def test_a_killed_sweep_resumes(warm: Warm, tmp_path: Path) -> None:
    """Killed while the second of two cells trains."""
    arguments = ("seed=0,1", "finetune.steps=50", "trainer.checkpoint_seconds=0")
    process = warm.begin(*TINY_SWEEP, *arguments, cwd=tmp_path)
    deadline = time.monotonic() + 200
    second = tmp_path / "outputs" / "sweeps" / "s" / "1"
    while time.monotonic() < deadline:
        if second.is_dir() and list(tmp_path.glob("outputs/stages/finetune/*.unfinished/last.ckpt")):
            break
        time.sleep(0.02)
    process.signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(results(tmp_path)) == ["0"]
    first = (tmp_path / "outputs" / "sweeps" / "s" / "0" / RESULT).read_bytes()

    answer = warm.lockdec(*TINY_SWEEP, *arguments, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "s: 1 of 2 cells done, 0 running, 0 failed" in answer.stdout
    assert [cell["status"] for cell in results(tmp_path).values()] == ["ok", "ok"]
    assert "does not have" not in answer.stdout
    assert (tmp_path / "outputs" / "sweeps" / "s" / "0" / RESULT).read_bytes() == first
    assert made(results(tmp_path), "pretrain") == 1
    answer = warm.lockdec(*TINY_SWEEP, "seed=5000", "fewshot.shots=5000", cwd=tmp_path)
    assert "s holds 2 finished cells that this command does not have; its own will overwrite 1" in answer.stdout
