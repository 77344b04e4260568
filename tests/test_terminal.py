"""What cannot be printed ends no run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lockdec.__main__ import COMMANDS

PRINT = """
import sys
from lockdec.terminal import forgive
forgive()
from lockdec.console import console
for _ in range(3000):
    console.print("caf\\u00e9 \\u65e5\\u672c")
    print("caf\\u00e9 \\u65e5\\u672c", flush=True)
print("the work is done", file=sys.stderr)
"""


def run(stdout: int, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PRINT], stdout=stdout, stderr=subprocess.PIPE, env=os.environ | environment, check=False
    )
    return done.returncode, done.stderr.decode()


def test_a_closed_pipe_is_quiet() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    assert run(writing) == (0, "the work is done\n")
    os.close(writing)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a device that is always full")
def test_a_full_disk_is_quiet() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    assert run(full) == (0, "the work is done\n")
    os.close(full)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp437"])
def test_a_terminal_that_lacks_characters_shows_question_marks(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRINT], capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"the work is done\n")
    shown = "caf\u00e9 \u65e5\u672c".encode(encoding, "replace")
    assert set(done.stdout.splitlines()) == {shown}


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_that_nobody_reads_is_quiet(command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "lockdec", *filter(None, [command]), "--help"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
