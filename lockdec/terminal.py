"""What every command shares: output that cannot end its work, errors that end it with one plain line, and durations.

A closed pipe is quiet, and what the terminal cannot show is `?`.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lockdec.errors import LockdecError, said


class Forgiving:
    """A stream that drops what it cannot write, as where a pipe is closed or a disk is full. The work goes on.

    Args:
        stream: all else is asked of it.
    """

    def __init__(self, stream: io.TextIOBase) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._drop()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        """Send what is still in the stream's buffer, and whatever follows, nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def forgive(closed_pipes: bool = True) -> None:
    """Make this process's standard output and error forgiving.

    Args:
        closed_pipes: False for a command whose only work is what it prints: it ends where nobody reads on.
    """
    for name, errors in (("stdout", "replace"), ("stderr", "backslashreplace")):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
            if closed_pipes:
                setattr(sys, name, Forgiving(stream))


@contextmanager
def plain_errors() -> Iterator[None]:
    """Within, an error that the user can fix, or one of the system, ends the process with one plain line.

    Ctrl-C ends it with 130, as a shell expects.
    """
    try:
        yield
    except (LockdecError, OSError) as error:
        sys.exit(f"lockdec: {said(error)}")
    except KeyboardInterrupt:
        sys.exit(130)


def duration(seconds: float) -> str:
    """Seconds in a unit that suits them: `40 s`, `14 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
