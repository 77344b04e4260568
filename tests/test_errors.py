"""The kinds of errors that a user can fix, and text that cannot control a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockdec import caption, export
from lockdec.errors import ConfigError, DataError, LockdecError, PrunedError, StoreError, said, visible
from lockdec.play.__main__ import main as play
from lockdec.report.__main__ import main as report
from lockdec.store.__main__ import main as store


@pytest.mark.parametrize("kind", [ConfigError, DataError, PrunedError, StoreError])
def test_every_kind_is_caught_as_an_error_that_the_user_can_fix(kind: type[Exception]) -> None:
    with pytest.raises(LockdecError, match=r"^decoder=x: no such decoder$"):
        raise kind("decoder=x: no such decoder")
    assert not issubclass(kind, ValueError | OSError), "code that expects those must not swallow it"


def test_letters_of_all_scripts_stay_visible() -> None:
    text = "Grüße, 猫 и кот, عربى, 👩‍🚒"
    assert visible(text) == text.replace("\N{ZERO WIDTH JOINER}", "\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("control", ["\x1b[2J", "\r", "\n", "\x07", "\x9b1A", "\u202e", "\u2066", "\x00", "\u2028"])
def test_what_controls_a_terminal_is_replaced(control: str) -> None:
    shown = visible(f"a{control}b")
    assert shown.startswith("a\N{REPLACEMENT CHARACTER}")
    assert shown.endswith("b")
    assert len(shown) == len(control) + 2


@given(st.text())
def test_visible_text_is_printable_and_stays_as_it_is(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert visible(shown) == shown


LONG = "n" * 300


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (caption.main, [LONG, "picture.png"]),
        (export.main, [LONG, "out"]),
        (report, [LONG]),
        (store, ["list", "--outputs", LONG]),
        (play, [LONG, "--port", "0"]),
    ],
)
def test_a_folder_that_cannot_be_is_one_line_in_every_command(
    command: Callable[[Sequence[str]], Any], words: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Asking whether such a folder exists is an error of its own."""
    try:
        status = command(words)
    except SystemExit as ended:
        status = ended.code
    lines = [*capsys.readouterr().err.splitlines(), *([status] if isinstance(status, str) else [])]
    assert status
    assert len(lines) == 1
    assert LONG in lines[0]


def test_a_long_value_does_not_fill_the_terminal_and_what_is_right_is_still_said() -> None:
    line = said(ConfigError(f"decoder.norm={'x' * 100_000}: use pre or post"))
    assert len(line) < 2100
    assert line.startswith("decoder.norm=xxx")
    assert line.endswith("x: use pre or post")


def test_an_error_of_the_system_names_its_file() -> None:
    assert said(FileNotFoundError(2, "No such file or directory", "a\x1bb")) == (
        "a\N{REPLACEMENT CHARACTER}b: No such file or directory"
    )
    assert said(OSError("nothing else is known")) == "nothing else is known"
