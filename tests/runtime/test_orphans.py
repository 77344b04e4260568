"""The workers of a sweep end with the process that started them, however that ended."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from lockdec.runtime import process
from lockdec.runtime.process import end_with_parent
from lockdec.store import CHECKPOINT
from tests.faults.warm import Warm


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("deaf", [False, True])  # to SIGTERM
def test_a_worker_ends_after_its_parent_was_killed(deaf: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.5)
    note = tmp_path / "worker"
    parent = os.fork()
    if parent == 0:
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else signal.SIG_DFL)
            end_with_parent()
            end_with_parent()  # for the next cell
            note.with_suffix(".partial").write_text(str(os.getpid()))
            note.with_suffix(".partial").rename(note)
        time.sleep(60)
        os._exit(0)
    deadline = time.monotonic() + 30
    while not note.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    worker = int(note.read_text())
    time.sleep(1.0)
    assert is_alive(worker), "its parent is alive"
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(worker)


def test_the_cells_of_a_sweep_that_was_killed_save_and_end(warm: Warm, tmp_path: Path) -> None:
    """A real sweep with joblib, whose workers are processes of their own: SIGKILL gives it no time to tell them."""
    launcher = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    endless = ("pretrain.seed=0,1", "pipeline.order=[pretrain]", "pretrain.steps=100000", "logger.kinds=[csv]")
    sweep = warm.start(tmp_path, *launcher, *endless, "trainer.checkpoint_seconds=1000")
    deadline = time.monotonic() + 300
    while len(list(sweep.folder.glob("*/stages/pretrain/metrics.csv"))) < 2:
        assert is_alive(sweep.pid), sweep.printed
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = [pid for pid in below(sweep.pid) if pid != sweep.pid]
    assert len(workers) >= 2
    sweep.signal(signal.SIGKILL)
    sweep.wait()
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if is_alive(pid)]
    assert len(list(tmp_path.glob(f"stages/pretrain/*/{CHECKPOINT}"))) == 2


def below(pid: int) -> list[int]:
    """The process and all that it has started, directly or not."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(descendant for child in children for descendant in below(int(child)))]
