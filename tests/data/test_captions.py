from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockdec.data.captions import CaptionSet, Input, fold, not_unicode
from lockdec.errors import DataError
from tests.data.caption_rows import Texts


class Rows(CaptionSet):
    def inputs(self, indices: Sequence[int]) -> list[Input]:
        return [self.ids[index] for index in indices]


def rows(**changes: object) -> Rows:
    arguments: dict[str, Any] = {
        "ids": ["a", "b", "c"],
        "captions": [["one"], ["two"], ["three"]],
        "splits": {"train": [0], "val": [1], "test": [2]},
        "modality": "text",
        "inputs_fingerprint": "0",
    }
    return Rows(**(arguments | changes))


def test_captions_are_folded() -> None:
    data = rows(captions=[["A  Red\tHat\n"], ["two"], ["ÄPFEL", "x"]])
    assert data.captions == (("a red hat",), ("two",), ("äpfel", "x"))


@given(st.text(st.characters(), max_size=12))
def test_captions_are_compared_in_one_form_whatever_form_they_come_in(text: str) -> None:
    folded = fold(text)
    assert fold(folded) == folded
    for form in ("NFC", "NFD"):
        assert fold(unicodedata.normalize(form, text)) == folded
    assert unicodedata.is_normalized("NFC", folded)


@given(st.text(st.characters(), max_size=12))
def test_what_utf_8_cannot_hold_is_told_in_plain_characters(text: str) -> None:
    problem = not_unicode(text)
    assert (problem is not None) == any("\ud800" <= character <= "\udfff" for character in text)
    assert problem is None or (problem.isascii() and problem.isprintable())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ["a", "a", "c"]}, "'a' occurs twice"),
        ({"ids": ["\u00e9", "e\u0301", "c"]}, "occurs twice"),
        ({"ids": ["a", "b\ud83d", "c"]}, "cannot be written in UTF-8"),
        ({"captions": [["one"], ["\udcff"], ["three"]]}, "id 'b': .* cannot be written in UTF-8"),
        ({"ids": ["a", "b"]}, "2 ids but captions for 3"),
        ({"captions": [["one"], [" "], ["three"]]}, "'b' has an empty caption"),
        ({"captions": [["one"], ["two"], []]}, "'c' has an empty caption or none"),
        ({"splits": {"train": [0, 1], "val": [1], "test": [2]}}, "every row exactly once"),
        ({"splits": {"train": [0], "val": [1], "test": []}}, "every row exactly once"),
        ({"splits": {"train": [0], "val": [1], "test": [3]}}, "every row exactly once"),
        (
            {"splits": {"train": [0, 1], "val": [2]}},
            r"data: Rows has 2 for train, 1 for val, 0 for test, and each needs at least one .*data\.limit",
        ),
    ],
)
def test_rows_that_contradict_each_other_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"ids": ["a", "b", "d"]},
        {"captions": [["one"], ["two"], ["four"]]},
        {"splits": {"train": [1], "val": [0], "test": [2]}},
        {"modality": "array"},
        {"inputs_fingerprint": "1"},
    ],
)
def test_everything_a_result_depends_on_is_in_the_fingerprint(changes: dict[str, object]) -> None:
    assert rows(**changes).fingerprint != rows().fingerprint
    assert rows().fingerprint == rows().fingerprint


def test_references_are_those_of_the_split() -> None:
    data = Texts([["a"], ["b", "c"], ["d"], ["e"]], (2, 1, 1))
    assert data.references("train") == ["a", "b", "c"]
    assert data.references("test") == ["e"]
