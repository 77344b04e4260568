"""A cache gives what attention over the whole sequence gives, for the rows and beams that are left."""

from __future__ import annotations

import pytest
import torch

from lockdec.transformer.attention import SelfAttention
from lockdec.transformer.decoding.caching import PIECE, Ancestry, KeyValueCache, Rows
from lockdec.transformer.positional import RotaryPositions
from tests.transformer.test_attention import normal
from tests.transformer.tiny_transformers import shake


def no_beams(inputs: int, max_len: int) -> Ancestry:
    """Of one sequence per input."""
    return Ancestry(inputs, 1, max_len, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_cached_self_attention_is_causal_self_attention(kv_heads: int, rotate: bool) -> None:
    total = 2 * PIECE + 1
    attention = SelfAttention(16, 4, kv_heads, rotary=RotaryPositions(total, 4) if rotate else None)
    shake(attention)
    x, ancestry = normal(3, total, 16).float(), no_beams(3, total)
    cache, parts = KeyValueCache(ancestry), []
    for t in range(total):
        ancestry.begin()
        assert ancestry.step == t
        parts.append(attention(x[:, t : t + 1], cache=cache))
    torch.testing.assert_close(torch.cat(parts, dim=1), attention(x, causal=True), atol=1e-5, rtol=1e-5)


def test_a_cache_keeps_the_chosen_rows_in_their_order() -> None:
    ancestry = no_beams(4, 3)
    cache = KeyValueCache(ancestry)
    rows = torch.arange(4.0).view(4, 1, 1, 1)
    ancestry.begin()
    cache.append(rows, rows * 10)
    for kept in ([3, 3, 0, 1], [1, 2]):
        cache.select(Rows(torch.tensor(kept)))
        ancestry.select(None, Rows(torch.tensor(kept)))
    ancestry.begin()
    key, value, bias = cache.append(rows[:2] + 5, rows[:2])
    assert key[:, 0, :2, 0].tolist() == [[3.0, 5.0], [0.0, 6.0]]
    assert value[:, 0, :2, 0].tolist() == [[30.0, 0.0], [0.0, 1.0]]
    assert bias.shape == (2, 1, PIECE)
    assert (bias == 0).tolist() == [[[True, True] + [False] * (PIECE - 2)]] * 2
    assert not key[:, :, 2:].any(), "masked places have to be finite"


def test_beams_attend_to_the_tokens_that_they_descend_from() -> None:
    attention, ancestry = SelfAttention(8, 2), Ancestry(2, 3, 4, torch.device("cpu"), torch.float32)
    shake(attention)
    cache, x = KeyValueCache(ancestry), normal(4, 2, 3, 8).float()  # (steps, inputs, beams, d_model)
    lineages = [[[beam] for beam in range(3)] for _ in range(2)]  # for each beam, the beam of each of its tokens
    forks = [[[1, 1, 0], [2, 0, 0]], [[0, 2, 2], [1, 1, 1]], [[2, 0, 1], [0, 1, 2]]]
    for step in range(4):
        ancestry.begin()
        out = attention(x[step].flatten(0, 1).unsqueeze(1), cache=cache).view(2, 3, 8)
        for row in range(2):
            for beam in range(3):
                whole = torch.stack([x[t, row, place] for t, place in enumerate(lineages[row][beam])]).unsqueeze(0)
                torch.testing.assert_close(out[row, beam], attention(whole, causal=True)[0, -1], atol=1e-5, rtol=1e-5)
        if step < 3:
            ancestry.select(torch.tensor(forks[step]), None)
            lineages = [
                [[*lineages[row][parent], beam] for beam, parent in enumerate(forks[step][row])] for row in range(2)
            ]
