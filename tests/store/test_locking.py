"""Locks: one holder at a time, released when the holder ends."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import socket
import time
from pathlib import Path

from lockdec.store.locking import is_held, locked, require_locks


def holder(path: Path, ready: Path) -> None:
    with locked(path):
        ready.touch()
        time.sleep(60)


def test_a_second_process_waits_until_the_holder_ends(tmp_path: Path) -> None:
    path, ready = tmp_path / "lock", tmp_path / "ready"
    assert not is_held(path)
    worker = multiprocessing.get_context("fork").Process(target=holder, args=(path, ready))
    worker.start()
    deadline = time.monotonic() + 60
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert is_held(path)
    assert worker.pid is not None
    calls = []

    def waiting(holder: str) -> None:
        calls.append(holder)
        os.kill(worker.pid or 0, signal.SIGKILL)

    with locked(path, waiting):
        assert is_held(path)
    worker.join()
    assert len(calls) == 1
    assert re.fullmatch(rf"\S+@{re.escape(socket.gethostname())}, process {worker.pid}, since 20\d\d-\S+ \S+", calls[0])
    assert not is_held(path)


def test_locks_work_here_and_the_probe_leaves_nothing(tmp_path: Path) -> None:
    require_locks(tmp_path)
    assert not list(tmp_path.iterdir())
