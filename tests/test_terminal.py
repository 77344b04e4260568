"""What cannot be printed ends no run, and an error that the user can fix ends a command with one plain line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lockdec.__main__ import COMMANDS
from lockdec.errors import ConfigError
from lockdec.terminal import plain_errors

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


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (
            ConfigError("data.limit=3:\n\x1b[2J use 32 or more"),
            "lockdec: data.limit=3: \N{REPLACEMENT CHARACTER}[2J use 32 or more",
        ),
        (FileNotFoundError(2, "No such file or directory", "x.png"), "lockdec: x.png: No such file or directory"),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_the_user_can_fix_is_one_plain_line(error: BaseException, code: str | int) -> None:
    with pytest.raises(SystemExit) as ended, plain_errors():
        raise error
    assert ended.value.code == code


def test_a_mistake_of_the_code_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), plain_errors():
        raise ZeroDivisionError
