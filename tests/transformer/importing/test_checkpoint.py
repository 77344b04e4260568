"""The options of a checkpoint: read, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from lockdec.errors import LockdecError
from lockdec.transformer.importing.checkpoint import MOST_TOKENS, Options


def options(**values: Any) -> Options:
    return Options("their/model", SimpleNamespace(**values))


def test_an_option_is_read_under_our_name() -> None:
    found = options(activation="gelu_new", vocab_size=31)
    assert found.choose("activation", {"gelu_new": "gelu_tanh", "relu": "relu"}) == "gelu_tanh"
    assert found.size("vocab_size", most=31) == 31
    found.only("activation", "relu", "gelu_new")
    found.require("rope_type of full_attention", "default", "default")


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda o: o.only("a", 1, 2), r"a=3 is not supported \(only 1 or 2\)"),
        (lambda o: o.choose("a", {"x": "y"}), r"a=3 is not supported \(only x\)"),
        (lambda o: o.require("a of b", "linear", "default"), r"a of b=linear is not supported \(only default\)"),
        (lambda o: o.size("a", most=2), "a=3 is not a whole number from 1 to 2"),
        (lambda o: o.size("zero", most=2), "zero=0 is not a whole number"),
        (lambda o: o.size("true", most=2), "true=True is not a whole number"),
        (lambda o: o.size("text", most=MOST_TOKENS), "text=8 is not a whole number from 1 to 16,777,216"),
    ],
)
def test_an_option_without_a_counterpart_is_refused_by_name(read: Callable[[Options], object], message: str) -> None:
    with pytest.raises(LockdecError, match=f"^their/model: {message}"):
        read(options(a=3, zero=0, true=True, text="8"))


@pytest.mark.parametrize(
    ("given", "size"), [({}, None), ({"head_dim": None}, None), ({"head_dim": 4}, None), ({"head_dim": 6}, 6)]
)
def test_the_size_of_a_head_is_named_only_where_it_is_not_what_follows_from_the_width(
    given: dict[str, Any], size: int | None
) -> None:
    assert options(hidden_size=16, num_attention_heads=4, **given).head_size() == size
