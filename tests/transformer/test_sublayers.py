"""Add-and-norm and gated feed-forward networks agree with their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lockdec.transformer.sublayers import FeedForward, LockingAddNorm
from tests.transformer.test_attention import agree, normal
from tests.transformer.tiny_transformers import decoder_config, shake


@pytest.mark.parametrize("norm_kind", ["layer", "rms"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_locking_add_and_norm_returns_its_input_where_the_sublayer_yields_zeros(norm: str, norm_kind: str) -> None:
    locking = LockingAddNorm(decoder_config(norm=norm, norm_kind=norm_kind)).double()
    assert list(locking.parameters()) == []
    x, a = normal(2, 3, 12), normal(2, 3, 12, seed=1)
    assert torch.equal(locking(x, torch.zeros_like), x)

    def normed(x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True) if norm_kind == "layer" else x
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    seen: list[Tensor] = []
    output = locking(x, lambda y: seen.append(y) or a)  # type: ignore[func-returns-value]
    if norm == "pre":
        agree(seen[0], normed(x))
        agree(output, x + a)
    else:
        agree(seen[0], x)
        agree(output, x + normed(x + a) - normed(x))


def test_swiglu_is_a_gated_silu() -> None:
    feed = FeedForward(decoder_config(activation="swiglu", bias="none")).double()
    shake(feed)
    x = normal(2, 3, 12)
    gate, up = x @ feed.input.weight[:20].T, x @ feed.input.weight[20:].T
    agree(feed(x), (gate * torch.sigmoid(gate) * up) @ feed.output.weight.T)
