"""Masked language modelling: which tokens are masked, replaced and kept."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from lockdec.data.tokenizer import EOS_ID
from lockdec.modules.masked_language_modeling import mask_tokens


@given(st.integers(0, 1000), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_only_tokens_of_the_text_are_masked_and_at_least_one_of_each_text(seed: int, lengths: list[int]) -> None:
    width, mask_id = max(lengths) + 2, 20
    rows = [[1, *range(3, 3 + n), 2, *[0] * (width - n - 2)] for n in lengths]
    tokens = torch.tensor(rows)
    read, chosen = mask_tokens(tokens, 0.15, mask_id, torch.Generator().manual_seed(seed))
    assert chosen.any(dim=1).all()
    assert not chosen[tokens <= EOS_ID].any()
    assert read[~chosen].equal(tokens[~chosen])
    assert ((read >= 3) & (read <= mask_id))[chosen].all()


def test_of_15_percent_80_are_masked_10_replaced_and_10_kept() -> None:
    tokens = torch.full((200, 200), 7)
    read, chosen = mask_tokens(tokens, 0.15, 1000, torch.Generator().manual_seed(0))
    count = chosen.sum().item()
    assert abs(count / tokens.numel() - 0.15) < 0.01
    assert abs((read[chosen] == 1000).sum().item() / count - 0.8) < 0.02
    assert abs((read[chosen] == 7).sum().item() / count - 0.1) < 0.02
