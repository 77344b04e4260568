"""Writing: the same as predicting one token at a time from scratch, without the waste."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_transformers import (
    ENCODER_DIM,
    cross_attention_config,
    encoded_batch,
    force_open,
    locking_model,
)
from torch import Tensor

from lockdec.errors import ConfigError, LockdecError
from lockdec.transformer.attention import MultiHeadAttention
from lockdec.transformer.models import Encoded, LockingDecoderModel

BOS, EOS, PAD = 1, 2, 0
SPECIAL = {"bos_id": BOS, "eos_id": EOS, "pad_id": PAD}


def captioner(seed: int = 0, **changes: Any) -> LockingDecoderModel:
    """An unlocked model whose cross-attention decides what it writes, and which ends its sequences here and there."""
    model = locking_model(seed, **changes)
    model.attach(cross_attention_config(bias=True), ENCODER_DIM)
    force_open(model)
    model.unlock()
    return model


def greedy_from_scratch(model: LockingDecoderModel, encoded: Encoded, new: int, least: int = 0) -> Tensor:
    """The definition: append the likeliest next token, computing everything anew, until every row has ended."""
    tokens = torch.full((len(encoded.states), 1), BOS)
    ended = torch.zeros(len(tokens), dtype=torch.bool)
    while tokens.shape[1] <= new and not ended.all():
        logits = model(tokens, encoded)[:, -1]
        if tokens.shape[1] - 1 < least:
            logits[:, EOS] = -torch.inf
        following = logits.argmax(-1).masked_fill(ended, PAD)
        tokens = torch.cat((tokens, following.unsqueeze(1)), dim=1)
        ended |= following == EOS
    return tokens[:, 1:]


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rope"])
def test_cached_greedy_is_greedy(position: str, norm: str) -> None:
    endings = set()
    for seed in range(6):
        model, encoded = captioner(seed, position=position, norm=norm), encoded_batch(rows=5, seed=seed)
        for least in (0, 3):
            written = model.generate(encoded, **SPECIAL, max_new_tokens=12, min_new_tokens=least)
            assert torch.equal(written, greedy_from_scratch(model, encoded, 12, least))
        endings.add(int((written == EOS).sum()))
    assert len(endings) > 1, "the cases should differ in how many rows end early"


def test_what_ended_is_padded_and_nothing_runs_after_the_last_end() -> None:
    model, steps = captioner(), []
    original = model.step
    model.step = lambda tokens, cache: steps.append(len(tokens)) or original(tokens, cache)  # type: ignore
    with torch.no_grad():
        model.embedding.tokens.weight.zero_()
        model.embedding.tokens.weight[EOS] = model.decoder.norm.bias  # the end is the likeliest token everywhere
    written = model.generate(encoded_batch(), **SPECIAL, max_new_tokens=12)
    assert torch.equal(written, torch.full((3, 1), EOS))
    assert steps == [3]
