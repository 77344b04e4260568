"""What goes wrong inside a process on purpose: killed at a moment, a full disk, no locks, little memory."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir")
FLOCK = {"x86_64": 73, "aarch64": 32}  # the number of the system call


@dataclass(frozen=True)
class Fault:
    """Which fault a process is to meet; every part of it is optional.

    Attributes:
        stage: whose work the moment lies in; files below `<outputs>/stages/<stage>/` are its own. "*" only writes
            down when each stage touched a file.
        event: the signal comes at this file operation of the stage, counted from 0...
        after: ...or from the first operation on a file whose name has this in it.
        seconds: the signal comes so long after the stage's first file operation.
        number: the signal.
        fill: when a file is opened whose path has this in it (`*` stands for anything), the disk of the outputs is
            filled...
        leave: ...up to so many bytes.
        limits: of the process, by their names in `resource`.
        flock: what locking answers instead of doing anything: 0 for success, or an error number.
    """

    stage: str = ""
    event: int | None = None
    after: str = ""
    seconds: float | None = None
    number: int = int(signal.SIGKILL)
    fill: str = ""
    leave: int = 0
    limits: dict[str, int] = field(default_factory=dict)
    flock: int | None = None


def arm(fault: Fault, outputs: Path, diary: Path) -> None:
    """Have this process meet the fault; `diary` receives what is written down."""
    for name, amount in fault.limits.items():
        resource.setrlimit(getattr(resource, name), (amount, amount))
    if fault.flock is not None:
        break_locks(fault.flock)
    _Watch(fault, outputs, diary)


class _Watch:
    def __init__(self, fault: Fault, outputs: Path, diary: Path) -> None:
        self.fault, self.outputs, self.diary = fault, outputs, diary
        self.seen, self.counting, self.filled, self.met = 0, not fault.after, False, False
        sys.addaudithook(self.see)

    def see(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name not in OPERATIONS or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.fsdecode(arguments[0])
        if self.fault.fill and fnmatchcase(path, f"*{self.fault.fill}*") and not self.filled:
            self.filled = True
            fill(self.outputs, self.fault.leave)
        stage, _, rest = path.removeprefix(f"{self.outputs}/stages/").partition("/")
        if stage == ".locks":  # a lock's file belongs to the stage whose name begins its own
            stage, _, rest = rest.partition("-")
        if not path.startswith(f"{self.outputs}/stages/") or not rest or stage == ".probe":
            return
        if self.fault.stage == "*":
            self.note(f"{stage} {time.monotonic()}")
        elif self.fault.stage == stage:
            self.wait_for_the_moment(path)
        elif self.met and self.counting:  # the stage was over before the moment came
            os.kill(os.getpid(), self.fault.number)

    def wait_for_the_moment(self, path: str) -> None:
        fault = self.fault
        if fault.seconds is not None and not self.met:
            threading.Timer(fault.seconds, os.kill, (os.getpid(), fault.number)).start()
        self.met = True
        self.counting = self.counting or fault.after in path
        if fault.event is not None and self.counting:
            if self.seen == fault.event:
                os.kill(os.getpid(), fault.number)
            self.seen += 1

    def note(self, line: str) -> None:
        descriptor = os.open(self.diary, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Within this block, this thread may not do what file modes forbid, even where it is root."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("Ii", 0x20080522, 0)  # the third version of capabilities; this thread
    before = ctypes.create_string_buffer(24)  # twice: effective, permitted, inheritable
    if libc.capget(header, before):
        raise OSError(ctypes.get_errno(), "no capabilities to read")
    effective, *others = struct.unpack("6I", before)
    override, read_search = 1 << 1, 1 << 2
    if libc.capset(header, struct.pack("6I", effective & ~(override | read_search), *others)):
        raise OSError(ctypes.get_errno(), "no capabilities to give up")
    try:
        yield
    finally:
        libc.capset(header, before)


def fill(folder: Path, leave: int) -> None:
    """Fill the disk of a folder, so that at most `leave` bytes of a file still fit."""
    filler = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT)
    disk = os.statvfs(folder)
    os.posix_fallocate(filler, 0, max(1, disk.f_bavail * disk.f_frsize - leave))
    os.close(filler)


def break_locks(answer: int) -> None:
    """Have the kernel answer this process's calls of flock by itself, by a seccomp filter."""
    load, equal, give = 0x20, 0x15, 0x06
    allow, errno_answer = 0x7FFF0000, 0x00050000
    steps = [
        (load, 0, 0, 0),
        (equal, 0, 1, FLOCK[platform.machine()]),
        (give, 0, 0, errno_answer | answer),
        (give, 0, 0, allow),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_filter = (38, 1, 0, 0, 0), (22, 2, program)
    if libc.prctl(*no_new_privileges) or libc.prctl(*set_filter):
        raise OSError(ctypes.get_errno(), "no seccomp filter")
