"""The nearest phrase: what it finds, and what it finds of itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lockdec.evaluation.nearest import nearest_phrases

PHRASES = ["woman singer dark skin tone", "man singer", "bus stop", "stop sign", "red apple"]


def test_rare_parts_and_parts_of_words_count() -> None:
    queries = ["woman singers, dark", "buses", "apples, red", "a sign that says stop"]
    assert nearest_phrases(queries, PHRASES) == [0, 2, 4, 3]


@given(st.lists(st.text("abc ", min_size=1), min_size=1, max_size=8, unique=True), st.data())
def test_a_phrase_is_nearest_to_itself(phrases: list[str], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(phrases) - 1))
    (found,) = nearest_phrases([phrases[index]], phrases)
    # Another may be equally near only where its n-grams stand in the same proportions.
    assert found == index or set(phrases[found]) == set(phrases[index])


def test_many_queries_are_answered_in_chunks() -> None:
    assert nearest_phrases(PHRASES * 300, PHRASES) == list(range(5)) * 300
