"""How files are written: whole or not at all, with room for them made sure of, and what is said when there is none."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from lockdec.errors import StoreError

PARTIAL = ".partial"  # ends the name of a file that is being written
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What torch and safetensors say, which keep the operating system's error number to themselves.
_DISK_FULL_TEXTS = ("no space left on device", "disk quota exceeded", "file too large", "file write failed")


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Replace a file so that a reader sees the old one or the new one, never a part, also after a power cut.

    Raises:
        StoreError: it cannot be written; names how much was needed and how much is free where the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in DISK_FULL:
            raise disk_full(path, needed=len(content)) from error
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """As `write_bytes`, a value as indented JSON without NaN."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def flush(path: Path) -> None:
    """Have the disk hold what was written to a file or into a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear_partial(folder: Path) -> None:
    """Remove what a killed process was writing. Only where no other process writes."""
    for path in folder.rglob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


def free_bytes(folder: Path) -> int:
    """How many bytes may still be written below a folder."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def require_free_space(path: Path, needed: int, what: str) -> None:
    """Raise StoreError when `needed` bytes of `what` will not fit where `path` lies."""
    left = free_bytes(path.parent)
    if left < needed:
        raise StoreError(f"{path}: {what} needs {format_bytes(needed)}, and {format_bytes(left)} are free; {_MEND}")


def is_disk_full(error: BaseException) -> bool:
    """Whether this error, or one that it came of, says that something did not fit."""
    seen: list[BaseException] = []
    while error not in seen:  # an error may be said to come of itself
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return True
        if isinstance(error, Exception) and any(text in str(error).lower() for text in _DISK_FULL_TEXTS):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__ or error
    return False


def disk_full(path: Path, needed: int | None = None) -> StoreError:
    """The error for a file that did not fit; without `needed`, at least what is there of it."""
    if needed is None:
        there = path.stat().st_size if path.is_file() else 0
        amount = f"more than {format_bytes(there)}"
    else:
        amount = format_bytes(needed)
    return StoreError(
        f"{path}: did not fit; it needs {amount}, and {format_bytes(free_bytes(path.parent))} are free "
        f"(or a limit on the size of files stands against it); {_MEND}"
    )


def format_bytes(count: float) -> str:
    """Bytes for people, in powers of 1,000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


_MEND = "free some space, then the same command goes on from here"
