"""File locks, which the operating system releases when the process that holds them ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lockdec.errors import StoreError


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock of this name; call `waiting` once if another process holds it."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file releases the lock


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock of this name."""
    if not path.exists():
        return False
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def require_locks(folder: Path) -> None:
    """Make sure that locks in this folder exclude each other.

    Some network file systems refuse all locks, and some grant all of them. Whether locks work between machines cannot
    be tested on one of them.

    Raises:
        StoreError: locks do not work in this folder.
        OSError: the folder cannot be written to.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        with probe.open("a") as first, probe.open("a") as second:
            reason = "a second process gets a lock that is held"
            try:
                fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                reason = f"{error.strerror}"
            else:
                with suppress(BlockingIOError):
                    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    raise _locks_do_not_work(folder, reason)
                return
            raise _locks_do_not_work(folder, reason)
    finally:
        probe.unlink(missing_ok=True)


def _locks_do_not_work(folder: Path, reason: str) -> StoreError:
    return StoreError(
        f"{folder}: the file system has no working locks ({reason}), so two processes could make the same artifact at "
        "once; put paths.outputs on another one"
    )
