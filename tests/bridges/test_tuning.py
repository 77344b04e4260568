"""Low-rank updates equal their definition; full finetuning keeps the pretrained weights beside those that learn."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from lockdec.bridges.budget import sized
from lockdec.bridges.tuning import Full, LoRA, LowRankUpdate
from lockdec.errors import ConfigError
from lockdec.transformer.models import LockingDecoderModel
from lockdec.transformer.positional import LearnedPositions
from tests.bridges.kinds import bridged
from tests.transformer.tiny_transformers import (
    ENCODER_DIM,
    close,
    cross_attention_config,
    encoded_batch,
    locking_model,
    token_batch,
)


def test_an_update_is_the_product_of_two_matrices_and_initially_nothing() -> None:
    torch.manual_seed(0)
    update, x = LowRankUpdate(6, [4, 2, 2], rank=3), torch.randn(2, 5, 6)
    assert update(x).equal(torch.zeros(2, 5, 8))
    assert all(down.abs().max() <= 6**-0.5 for down in update.down)
    for up in update.up:
        torch.nn.init.normal_(up)
    merged = torch.cat([b @ a for a, b in zip(update.down, update.up, strict=True)])  # (8, 6)
    close(update(x), x @ merged.T)
    with torch.no_grad():
        update.up[1].zero_()
    assert update(x)[..., 4:6].eq(0).all()


def after_a_token(model: LockingDecoderModel) -> None:
    """Make the soft prompt the vector of token 5, whatever the input, and learned positions nothing."""
    assert isinstance(model.bridge, LoRA | Full)
    assert isinstance(model.bridge.map, torch.nn.Linear)
    with torch.no_grad():
        model.bridge.map.weight.zero_()
        model.bridge.map.bias.copy_(model.embedding.tokens.weight[5])
        if isinstance(model.embedding.positions, LearnedPositions):
            model.embedding.positions.weight.zero_()


@pytest.mark.parametrize("style", [{}, {"kv_heads": 1, "position": "rope", "bias": "none"}], ids=["gpt", "llama"])
def test_lora_computes_what_merged_weights_compute(style: dict[str, Any]) -> None:
    model, tokens, encoded = bridged("lora", **style), token_batch(), encoded_batch()
    after_a_token(model)
    found = model(tokens, encoded)
    model.lock()
    merged = copy.deepcopy(model)
    bridge = merged.bridge
    assert isinstance(bridge, LoRA)
    for layer, updates in zip(merged.decoder.layers, bridge.updates, strict=True):
        attention: Any = layer.self_attention
        for linear, update in zip((attention.query_key_value, attention.output), updates, strict=True):  # type: ignore[call-overload]
            product = torch.cat([b @ a for a, b in zip(update.down, update.up, strict=True)])
            linear.weight.data += product
    longer = torch.cat((torch.full((3, 1), 5), tokens), dim=1)
    close(found, merged(longer)[:, 1:])
    assert not torch.allclose(found, model(longer)[:, 1:], atol=1e-2)


def test_before_it_learns_lora_is_its_soft_prompt() -> None:
    model, tokens, encoded = locking_model(), token_batch(), encoded_batch()
    bridge = LoRA(length=1, rank=2)
    bridge.draw(model, ENCODER_DIM)
    model.attach_bridge(bridge)
    after_a_token(model)
    model.unlock()
    found = model(tokens, encoded)
    model.lock()
    close(found, model(torch.cat((torch.full((3, 1), 5), tokens), dim=1))[:, 1:])


def test_lora_has_the_parameters_the_formula_says() -> None:
    model, config = locking_model(kv_heads=1), cross_attention_config()
    prefix = (ENCODER_DIM + 1) * 12
    each = 2 * ((12 + 12) + 2 * (12 + 4) + (12 + 12))  # two layers; query, key, value and output projections
    found, _, size = sized(LoRA(length=1), config, prefix + 3 * each + 20, model, ENCODER_DIM)
    assert isinstance(found, LoRA)
    assert size is not None
    assert (found.rank, size.had) == (3, prefix + 3 * each)
    found.draw(model, ENCODER_DIM)
    assert sum(weight.numel() for weight in found.parameters()) == size.had
    with pytest.raises(ConfigError, match=r"with bridge\.rank=4, the largest, there are only"):
        sized(LoRA(length=1), config, 5000, model, ENCODER_DIM)


@pytest.mark.parametrize("half", [False, True])
def test_all_weights_learn_and_the_pretrained_ones_come_back(half: bool) -> None:
    model, tokens, encoded = locking_model(), token_batch(), encoded_batch()
    model = model.bfloat16() if half else model
    pretrained = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    bridge = Full(length=1)
    bridge.draw(model, ENCODER_DIM)
    model.attach_bridge(bridge)
    trained = model.bridge_parameters()
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    assert sum(weight.numel() for weight in trained.values()) == sum(
        weight.numel() for weight in pretrained.values()
    ) + 12 * (ENCODER_DIM + 1)
    assert sized(Full(length=1), cross_attention_config(), 100, model, ENCODER_DIM)[2] is None
    model.unlock()
    model.freeze_decoder()
    optimizer = torch.optim.SGD(
        [weight for weight in model.parameters() if weight.requires_grad], lr=1e-4 if half else 0.1
    )
    model(tokens, encoded).square().mean().backward()
    optimizer.step()
    assert not any(model.get_parameter(name).equal(weight) for name, weight in pretrained.items())
    assert {id(weight) for weight in model.bridge_parameters().values()} == {id(w) for w in trained.values()}
    learned = model(tokens, encoded)
    model.lock()
    assert all(model.get_parameter(name).equal(weight) for name, weight in pretrained.items())
    model.unlock()
    assert model(tokens, encoded).equal(learned)


@pytest.mark.parametrize(
    ("settings", "message"), [({"rank": 0}, r"bridge\.rank=0"), ({"prefix_rank": 0}, r"bridge\.prefix_rank=0")]
)
def test_impossible_sizes_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoRA(**settings)
