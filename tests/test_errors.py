"""The kinds of errors that a user can fix, and text that cannot control a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockdec.errors import ConfigError, DataError, LockdecError, PrunedError, StoreError, visible


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
