"""The nearest phrase: what it finds, and what it finds of itself."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockdec.evaluation.nearest import nearest_phrases

PHRASES = ["woman singer dark skin tone", "man singer", "bus stop", "stop sign", "red apple"]


def test_rare_parts_and_parts_of_words_count() -> None:
    queries = ["woman singers, dark", "buses", "apples, red", "a sign that says stop"]
    assert nearest_phrases(queries, PHRASES) == [0, 2, 4, 3]


def cosine(query: str, phrase: str, phrases: list[str]) -> float:
    """TF-IDF over character 1- to 5-grams by its definition: term frequency times 1 + ln(n / document frequency)."""

    def grams(text: str) -> Counter[str]:
        return Counter(f" {text} "[at : at + size] for size in range(1, 6) for at in range(len(text) + 3 - size))

    known = [grams(one) for one in phrases]
    rarity = {gram: 1 + math.log(len(known) / sum(gram in one for one in known)) for one in known for gram in one}
    a, b = ({gram: n * rarity[gram] for gram, n in grams(one).items() if gram in rarity} for one in (query, phrase))
    return sum(a[gram] * b[gram] for gram in a.keys() & b.keys()) / (math.hypot(*a.values()) * math.hypot(*b.values()))


@given(st.text("abcd ", min_size=1), st.lists(st.text("abc ", min_size=1), min_size=2, max_size=6, unique=True))
def test_the_cosine_is_that_of_tf_idf_vectors(query: str, phrases: list[str]) -> None:
    (found,) = nearest_phrases([query], phrases)
    similar = [cosine(query, phrase, phrases) for phrase in phrases]
    assert similar[found] == pytest.approx(max(similar))


@given(st.lists(st.text("abc ", min_size=1), min_size=1, max_size=8, unique=True), st.data())
def test_a_phrase_is_nearest_to_itself(phrases: list[str], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(phrases) - 1))
    (found,) = nearest_phrases([phrases[index]], phrases)
    # Another may be equally near only where its n-grams stand in the same proportions.
    assert found == index or set(phrases[found]) == set(phrases[index])


def test_many_queries_are_answered_in_chunks() -> None:
    assert nearest_phrases(PHRASES * 300, PHRASES) == list(range(5)) * 300
