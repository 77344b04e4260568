"""Masked language modelling: which tokens are masked, replaced and kept."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from lockdec.data.tokenizer import EOS_ID, train_tokenizer
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


@given(st.integers(0, 1000))
def test_a_word_is_chosen_whole_or_not_at_all(seed: int) -> None:
    """Tokens from 10 on begin a word; the first of a text does so wherever it is from."""
    rows = [[1, 10, 3, 4, 11, 12, 5, 2], [1, 6, 13, 7, 2, 0, 0, 0], [1, 14, 15, 8, 8, 2, 0, 0]]
    words = [[[1, 2, 3], [4], [5, 6]], [[1], [2, 3]], [[1], [2, 3, 4]]]
    tokens, begins = torch.tensor(rows), torch.arange(20) >= 10
    chosen = mask_tokens(tokens, 0.3, 20, torch.Generator().manual_seed(seed), begins)[1]
    assert not chosen[tokens <= EOS_ID].any()
    for row, positions in zip(chosen, words, strict=True):
        kept = [{bool(row[position]) for position in word} for word in positions]
        assert all(len(one) == 1 for one in kept)
        assert {True} in kept


def test_words_begin_where_a_space_does() -> None:
    tokenizer = train_tokenizer(["der schwarze hund bellt", "der hund schläft"] * 3, 300)
    ids = tokenizer.encode_batch(["der schwarzhund bellt"])[0]
    begins = tokenizer.begins_word[ids]
    assert begins[0]
    assert int(begins.sum()) == 3
    assert len(ids) > 3
