"""Encoded inputs keep their real states, whatever is picked, moved or cut."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from lockdec.transformer.encoded import Encoded
from tests.transformer.tiny_transformers import (
    encoded_batch,
)


def test_encoded_moves_and_picks_rows() -> None:
    encoded = encoded_batch(rows=3)
    assert len(encoded) == 3
    picked = encoded.index(torch.tensor([2, 0, 0]))
    assert torch.equal(picked.states[1], encoded.states[0])
    assert torch.equal(picked.mask[0], encoded.mask[2])
    assert encoded.to("meta").states.device.type == encoded.to("meta").mask.device.type == "meta"


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=4))
def test_trimming_keeps_the_real_states_in_their_order_and_no_more_than_it_has_to(mask: list[list[bool]]) -> None:
    whole = Encoded(torch.arange(len(mask) * 8.0).view(len(mask), 4, 2), torch.tensor(mask))
    trimmed = whole.trimmed()
    assert trimmed.states.shape[1] == max(1, *map(sum, mask))
    for row in range(len(mask)):
        assert torch.equal(trimmed.states[row][trimmed.mask[row]], whole.states[row][whole.mask[row]])
