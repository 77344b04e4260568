"""File locks, which the operating system releases when the process that holds them ends."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lockdec.errors import StoreError

_LONGEST_NOTE = 1_000  # bytes


@contextmanager
def locked(path: Path, waiting: Callable[[str], None] = lambda holder: None) -> Iterator[None]:
    """Hold the lock of this name.

    Args:
        waiting: called once if another process holds it, with what is known of that: `anna@node3, process 71, since
            2026-03-01 14:02:11`, or an empty text.
    """
    with _opened(path) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting(_holder(descriptor))
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        _note(descriptor, json.dumps({"by": _self(), "process": os.getpid(), "since": time.time()}))
        try:
            yield
        finally:
            _note(descriptor, "")  # closing the file releases the lock


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock of this name."""
    if not path.exists():
        return False
    with _opened(path) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The file of a lock, which may belong to another user; some network file systems lock only what can be written."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except PermissionError:
        if not path.exists():
            raise
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _note(descriptor: int, text: str) -> None:
    with suppress(OSError):  # another user's file, or a full disk: the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _holder(descriptor: int) -> str:
    try:
        note = json.loads(os.pread(descriptor, _LONGEST_NOTE, 0))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(note["since"])))
        return f"{note['by']}, process {int(note['process'])}, since {since}"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return ""


def _self() -> str:
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container, perhaps
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def require_locks(folder: Path) -> None:
    """Make sure that locks in this folder exclude each other.

    Some network file systems refuse all locks, and some grant all of them. Whether locks work between machines cannot
    be tested on one of them.

    Raises:
        StoreError: locks do not work in this folder.
        OSError: the folder cannot be written to.
    """
    probe = folder / f".probe-{socket.gethostname()}-{os.getpid()}"
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
