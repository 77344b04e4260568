"""The workers of a sweep end with the process that started them, however that ended."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from lockdec.runtime import process
from lockdec.runtime.process import end_with_parent


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
