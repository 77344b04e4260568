"""Which tokens are ruled out, and how finished sequences leave the batch."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from lockdec.transformer.configuration import GenerationConfig
from lockdec.transformer.decoding.tokens import SpecialTokens, compact, constrain


def test_a_model_that_begins_and_ends_with_one_token_can_end() -> None:
    """GPT-2's: neither the penalty nor the ban on repeated tokens counts the first token as an end."""
    special = SpecialTokens(bos=3, eos=3, pad=0)
    past, scores = torch.tensor([[3, 1, 2]]), torch.tensor([[0.5, 2.0, -1.0, 4.0]])
    config = GenerationConfig(no_repeat_ngram=1, repetition_penalty=2.0)
    assert constrain(scores, past, special, config).tolist() == [[0.5, -math.inf, -math.inf, 4.0]]
    scores = torch.tensor([[0.5, 2.0, -1.0, 4.0]])
    config = GenerationConfig(repetition_penalty=2.0, min_new_tokens=3)
    assert constrain(scores, past, special, config).tolist() == [[0.5, 1.0, -2.0, -math.inf]]


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_active_rows_move_only_into_the_gaps_of_finished_ones(active: list[bool]) -> None:
    rows = compact(torch.tensor(active)).tolist()
    assert sorted(rows) == [row for row, going in enumerate(active) if going]
    assert all(rows[place] == place for place in range(len(rows)) if active[place])
