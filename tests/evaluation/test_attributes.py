"""Attributes that captions tell."""

from __future__ import annotations

import pytest

from lockdec.evaluation.attributes import AttributeReader

READER = AttributeReader(
    {
        "tone": {tone: f"{tone} skin tone" for tone in ("light", "medium-light", "dark")},
        "hair": {"red": "red hair", "none": "bald"},
    }
)


def test_the_longest_words_count() -> None:
    assert READER.read("a Woman, medium-light skin tone, red hair") == {"tone": ("medium-light",), "hair": ("red",)}


def test_words_count_as_a_whole() -> None:
    assert READER.read("a darkish skin tone of balding people") == {"tone": (), "hair": ()}


def test_several_values_are_told_in_their_order() -> None:
    two = "handshake: dark skin tone, light skin tone"
    assert READER.read(two)["tone"] == ("dark", "light")


def test_accuracy_is_over_the_inputs_whose_reference_tells_the_attribute() -> None:
    references = [["man light skin tone"], ["man dark skin tone"], ["a tree"], ["light skin tone dark skin tone"]]
    captions = ["light skin tone", "light skin tone", "dark skin tone", "dark skin tone light skin tone"]
    assert READER.accuracies(captions, references) == {"tone": pytest.approx(1 / 3)}


def test_copies_of_the_reference_are_right() -> None:
    references = [["man light skin tone bald"], ["red hair woman"]]
    assert READER.accuracies([texts[0] for texts in references], references) == {"tone": 1.0, "hair": 1.0}
