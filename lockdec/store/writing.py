"""Writes files completely or not at all, and reports how much disk space is missing when they do not fit."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from lockdec.errors import StoreError

PARTIAL = ".partial"  # suffix of a file that is being written
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Messages of torch and safetensors, which do not pass on the error number of the operating system.
_DISK_FULL_TEXTS = ("no space left on device", "disk quota exceeded", "file too large", "file write failed")


@contextmanager
def replacing(path: Path, needed: int | None = None) -> Iterator[BinaryIO]:
    """Replace a file atomically by what is written into the one that is yielded.

    Readers see either the old or the new content, even after a power failure.

    Args:
        needed: how many bytes will be written, for the error if the disk is full.

    Raises:
        StoreError: the file cannot be written; if the disk is full, the error says how much is needed and free.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:  # a new file: never through a link that somebody has put there
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in DISK_FULL:
            raise disk_full(path, needed) from error
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Make a folder, or take one that is empty; if what is done inside fails, nothing of it stays.

    Raises:
        StoreError: there is something already, or the folder cannot be made.
    """
    there = path.exists()
    if there and (not path.is_dir() or any(path.iterdir())):
        raise StoreError(f"{path}: exists already; name a new or an empty folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        yield
    except BaseException:
        with suppress(OSError):  # what is wrong has been raised already
            for inner in list(path.iterdir()):
                if inner.is_dir() and not inner.is_symlink():
                    shutil.rmtree(inner)
                else:
                    inner.unlink()
            if not there:
                path.rmdir()
        raise


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Replace a file atomically; StoreError as `replacing`."""
    with replacing(path, needed=len(content)) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, for a text in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """As `write_bytes`, for a value as indented JSON without NaN."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def flush(path: Path) -> None:
    """Flush a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def clear_partial(folder: Path) -> None:
    """Remove files that a killed process left half written; no other process may be writing to the folder."""
    for path in folder.rglob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


def free_bytes(folder: Path) -> int:
    """How many bytes are free for a folder."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def require_free_space(path: Path, needed: int, what: str) -> None:
    """Raise StoreError if `needed` bytes of `what` will not fit on the disk of `path`."""
    left = free_bytes(path.parent)
    if left < needed:
        raise StoreError(f"{path}: {what} needs {format_bytes(needed)}, and {format_bytes(left)} are free; {_ADVICE}")


def is_disk_full(error: BaseException) -> bool:
    """Whether this error, or one of its causes, says that the disk is full."""
    seen: list[BaseException] = []
    while error not in seen:  # an error can be its own cause
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            return True
        if isinstance(error, Exception) and any(text in str(error).lower() for text in _DISK_FULL_TEXTS):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__ or error
    return False


def disk_full(path: Path, needed: int | None = None) -> StoreError:
    """The error for a file that did not fit. Without `needed`, the size of the part that was written is reported."""
    if needed is None:
        there = path.stat().st_size if path.is_file() else 0
        amount = f"more than {format_bytes(there)}"
    else:
        amount = format_bytes(needed)
    return StoreError(
        f"{path}: did not fit; it needs {amount}, and {format_bytes(free_bytes(path.parent))} are free "
        f"(or a limit on file sizes applies); {_ADVICE}"
    )


def format_bytes(count: float) -> str:
    """A readable number of bytes, in powers of 1,000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


_ADVICE = "free some space, then run the same command to continue"
