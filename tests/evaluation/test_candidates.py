"""Minimum Bayes risk: the caption that is on average most like all that were drawn."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockdec.evaluation.candidates import by_risk, expected_utilities
from lockdec.evaluation.configuration import UTILITIES
from lockdec.evaluation.metrics import METRICS
from lockdec.evaluation.scoring import Candidate

CAPTIONS = st.lists(
    st.sampled_from(["woman dancing", "man dancing", "a man", "cat", "", "man dancing dark"]), min_size=1
)


def test_the_caption_that_the_others_agree_on_is_chosen() -> None:
    """F1 with all four, itself included: of `red hat` (1 + 1 + 2/3 + 0) / 4."""
    drawn = ["blue shoe", "red hat", "red cap", "red hat"]
    assert expected_utilities(drawn, "token_f1") == pytest.approx([0.25, 0.625, 0.5, 0.625])
    ranked = by_risk([Candidate(text, 0.0, (number,)) for number, text in enumerate(drawn)], "token_f1")
    assert [caption.ids[0] for caption in ranked] == [1, 3, 2, 0]


@settings(deadline=None, max_examples=40)
@given(CAPTIONS, st.sampled_from(UTILITIES))
def test_expected_utility_is_the_mean_over_all_draws(drawn: list[str], utility: str) -> None:
    wanted = [sum(METRICS[utility]([text], [[other]]) for other in drawn) / len(drawn) for text in drawn]
    assert expected_utilities(drawn, utility) == pytest.approx(wanted)
    ranked = by_risk([Candidate(text, 0.0, (number,)) for number, text in enumerate(drawn)], utility)
    assert [wanted[caption.ids[0]] for caption in ranked] == pytest.approx(sorted(wanted, reverse=True))
