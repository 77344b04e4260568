"""Locked is a GPT; unlocking changes nothing; every input then matters; only cross-attention trains."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from lockdec.errors import LockdecError
from lockdec.transformer.configuration import UNLOCKS, ZERO_INITIALISED
from lockdec.transformer.layers import LockingDecoderLayer
from lockdec.transformer.models import Encoded, LockingDecoderModel
from tests.transformer.tiny_transformers import (
    ENCODER_DIM,
    VOCAB,
    cross_attention_config,
    decoder_config,
    encoded_batch,
    force_open,
    locking_model,
    shake,
    token_batch,
)

NORMS = ("pre", "post")
STYLES: tuple[dict[str, Any], ...] = (
    {},
    {
        "position": "rope",
        "norm_kind": "rms",
        "activation": "swiglu",
        "bias": "none",
        "kv_heads": 1,
        "tied": False,
    },
    {"position": "sinusoidal", "activation": "relu"},
)


def gpt(weights: dict[str, Tensor], tokens: Tensor, norm: str, layers: int, heads: int) -> Tensor:
    """GPT-2 (pre) or GPT-1 (post) in plain torch functions, without any place for cross-attention."""

    def layer_norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def attention(x: Tensor, name: str) -> Tensor:
        b, t, d = x.shape
        parts = linear(x, f"{name}.query_key_value").view(b, t, 3 * heads, d // heads).transpose(1, 2)
        query, key, value = torch.chunk(parts, 3, dim=1)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return linear(mixed.transpose(1, 2).reshape(b, t, d), f"{name}.output")

    def feed_forward(x: Tensor, name: str) -> Tensor:
        return linear(F.gelu(linear(x, f"{name}.input")), f"{name}.output")

    table = weights["embedding.tokens.weight"]
    x = table[tokens] + weights["embedding.positions.weight"][: tokens.shape[1]]
    for layer in range(layers):
        for part, sublayer in (("self_attention", attention), ("feed_forward", feed_forward)):
            name = f"decoder.layers.{layer}.{part}"
            if norm == "pre":
                x = x + sublayer(layer_norm(x, f"{name}_norm.norm"), name)
            else:
                x = layer_norm(x + sublayer(x, name), f"{name}_norm.norm")
    if norm == "pre":
        x = layer_norm(x, "decoder.norm")
    return F.linear(x, table)


def next_token_loss(logits: Tensor, tokens: Tensor) -> Any:
    """Cross-entropy of every next token."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def digest(tensors: dict[str, Tensor]) -> str:
    """A hash over names and bytes."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(name.encode() + tensor.detach().numpy().tobytes())
    return sha.hexdigest()


def frozen(model: LockingDecoderModel) -> dict[str, Tensor]:
    """Everything that finetuning must leave alone."""
    trained = model.cross_attention_parameters()
    return {name: tensor for name, tensor in model.state_dict().items() if name not in trained}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attached", [False, True])
def test_locked_is_a_gpt(norm: str, attached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockdec.transformer.fast.products.SHORT", 0)  # the fused call, as below: equal to the last bit
    model = locking_model(norm=norm)
    if attached:
        model.attach(cross_attention_config(), ENCODER_DIM)
    own = {name: p for name, p in model.named_parameters() if ".cross_attention." not in name}
    copies = {name: p.detach().clone().requires_grad_() for name, p in own.items()}
    tokens = token_batch()

    logits = model(tokens, encoded_batch())
    reference = gpt(copies, tokens, norm, layers=2, heads=3)
    assert torch.equal(logits, reference)

    for output in (logits, reference):
        next_token_loss(output, tokens).backward()
    for name, parameter in own.items():
        gradient, expected = parameter.grad, copies[name].grad
        assert gradient is not None, name
        assert expected is not None, name
        assert torch.equal(gradient, expected), name
    assert all(parameter.grad is None for parameter in model.cross_attention_parameters().values())


@pytest.mark.parametrize("norm", NORMS)
def test_locked_has_no_cross_attention_parameters_and_no_flops(norm: str) -> None:
    model, tokens, config = locking_model(norm=norm), token_batch(), decoder_config(norm=norm)
    assert model.locked
    assert not model.attached
    assert model.cross_attention_parameters() == {}
    d, norms = config.d_model, 2 * config.layers + (norm == "pre")
    per_layer = 4 * (d * d + d) + (2 * d * config.d_ff + config.d_ff + d)
    expected = config.layers * per_layer + norms * 2 * d + (VOCAB + config.max_len) * d
    assert sum(parameter.numel() for parameter in model.parameters()) == expected

    counts, operations = [], []
    for attached in (False, True):
        if attached:
            model.attach(cross_attention_config(), ENCODER_DIM)
        with FlopCounterMode(display=False) as counter:
            model(tokens, encoded_batch())
        counts.append(counter.get_total_flops())
        with profile() as profiler:
            model(tokens, encoded_batch())
        operations.append([str(event.name) for event in profiler.events() if event.name.startswith("aten::")])
    # Two products of each layer are its self-attention's.
    attention = 2 * tokens.shape[1] * d
    products = 2 * tokens.numel() * (config.layers * (4 * d * d + 2 * d * config.d_ff + attention) + d * VOCAB)
    assert counts == [products, products]
    assert operations[0] == operations[1]
    assert operations[0].count("aten::softmax") == config.layers


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("unlock", ZERO_INITIALISED)
def test_unlocking_changes_nothing(unlock: str, norm: str, style: dict[str, Any]) -> None:
    model, tokens, encoded = locking_model(norm=norm, **style), token_batch(), encoded_batch()
    locked = model(tokens)
    model.attach(cross_attention_config(unlock=unlock), ENCODER_DIM)
    assert model.locked
    assert torch.equal(model(tokens, encoded), locked)
    model.unlock()
    for states in (encoded.states, encoded.states * 1e4, torch.zeros_like(encoded.states)):
        assert torch.equal(model(tokens, Encoded(states, encoded.mask)), locked)
    nothing = torch.zeros_like(encoded.mask)
    assert torch.equal(model(tokens, Encoded(encoded.states, nothing)), locked)


@pytest.mark.parametrize("norm", NORMS)
def test_plain_unlocking_does_change_something(norm: str) -> None:
    model, tokens, encoded = locking_model(norm=norm), token_batch(), encoded_batch()
    locked = model(tokens)
    model.attach(cross_attention_config(unlock="plain"), ENCODER_DIM)
    model.unlock()
    assert (model(tokens, encoded) - locked).abs().amin() > 0


@pytest.mark.parametrize("unlock", ["tanh_gate", "rezero", "layerscale"])
def test_a_zero_gate_with_a_zero_output_projection_is_refused(unlock: str) -> None:
    model = locking_model()
    model.attach(cross_attention_config(unlock=unlock), ENCODER_DIM)
    for name, parameter in model.cross_attention_parameters().items():
        if name.endswith("output.weight"):
            torch.nn.init.zeros_(parameter)
    with pytest.raises(LockdecError, match=f"cross_attention.unlock={unlock}.*both zero"):
        model.unlock()
    assert model.locked


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("unlock", UNLOCKS)
def test_once_open_every_unmasked_state_matters_and_no_masked_one(unlock: str, norm: str) -> None:
    model, tokens, encoded = locking_model(norm=norm), token_batch(), encoded_batch()
    model.attach(cross_attention_config(unlock=unlock), ENCODER_DIM)
    force_open(model)
    model.unlock()
    before = model(tokens, encoded)
    assert not torch.equal(before, model(tokens, Encoded(encoded.states, torch.zeros_like(encoded.mask))))
    for row in range(encoded.states.shape[0]):
        for state in range(encoded.states.shape[1]):
            states = encoded.states.clone()
            states[row, state] += 1.0
            changed = (model(tokens, replace(encoded, states=states)) != before).any(-1)  # (b, t)
            assert bool(changed[row].all()) == bool(encoded.mask[row, state])
            changed[row] = False
            assert not changed.any(), "a row saw the states of another row"


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("unlock", UNLOCKS)
def test_only_cross_attention_trains(unlock: str, norm: str) -> None:
    model, tokens, encoded = locking_model(norm=norm), token_batch(), encoded_batch()
    pretrained = model(tokens)
    model.attach(cross_attention_config(unlock=unlock, bias=True), ENCODER_DIM)
    model.freeze_decoder()
    model.unlock()
    hash_before, trained_before = digest(frozen(model)), model.cross_attention_parameters()
    started = {name: p.detach().clone() for name, p in trained_before.items()}
    # Decay everything that has a gradient: a frozen parameter with one would move.
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
    losses = []
    for _ in range(4):
        loss = next_token_loss(model(tokens, encoded), tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert digest(frozen(model)) == hash_before
    for name, parameter in model.cross_attention_parameters().items():
        assert not torch.equal(parameter, started[name]), f"{name} did not train"
    assert not torch.equal(model(tokens, encoded), pretrained)
    model.lock()
    assert torch.equal(model(tokens, encoded), pretrained)
    assert torch.equal(model(tokens), pretrained)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("unlock", ZERO_INITIALISED)
def test_every_start_but_plain_can_learn_at_once(unlock: str, norm: str) -> None:
    model, tokens = locking_model(norm=norm), token_batch()
    model.attach(cross_attention_config(unlock=unlock), ENCODER_DIM)
    model.freeze_decoder()
    model.unlock()
    model(tokens, encoded_batch()).square().sum().backward()
    opening = "output.weight" if unlock == "zero_output" else "gate"
    for name, parameter in model.cross_attention_parameters().items():
        if name.endswith(opening):
            assert parameter.grad is not None
            assert (parameter.grad != 0).all(), name


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 3, 3, 5), (2, 3, 2, 4), (5, 1, 4, 1)])
def test_cross_attention_has_the_parameters_the_formula_says(sizes: tuple[int, int, int, int], bias: bool) -> None:
    heads, d_q, d_k, d_v = sizes
    model, d_model = locking_model(), decoder_config().d_model
    model.attach(cross_attention_config(heads=heads, d_q=d_q, d_k=d_k, d_v=d_v, bias=bias), ENCODER_DIM)
    per_layer = heads * (d_model * d_q + ENCODER_DIM * d_k + ENCODER_DIM * d_v + d_v * d_model)
    per_layer += heads * d_q * d_k if d_q != d_k else 0
    per_layer += heads * (d_q + d_k + d_v) + d_model if bias else 0
    assert sum(p.numel() for p in model.cross_attention_parameters().values()) == 2 * per_layer


def test_gates_are_one_scale_or_one_per_channel() -> None:
    model = locking_model()
    for unlock, size in (
        ("tanh_gate", 1),
        ("rezero", 1),
        ("layerscale", 12),
        ("zero_output", 0),
        ("plain", 0),
    ):
        model.attach(cross_attention_config(unlock=unlock), ENCODER_DIM)
        gates = [p for name, p in model.cross_attention_parameters().items() if name.endswith("gate")]
        assert [gate.numel() for gate in gates] == ([size, size] if size else [])


def test_attaching_again_starts_afresh_from_the_seed() -> None:
    model, drawn = locking_model(), []
    for _ in range(2):
        torch.manual_seed(5)
        model.attach(cross_attention_config(), ENCODER_DIM)
        drawn.append(digest(dict(model.cross_attention_parameters())))
        shake(model.decoder)
        model.unlock()
    assert drawn[0] == drawn[1]


def test_attention_maps_are_those_of_the_forward_pass() -> None:
    model, tokens, encoded = locking_model(), token_batch(), encoded_batch()
    model.attach(cross_attention_config(unlock="rezero"), ENCODER_DIM)
    model.unlock()
    assert all(attended.cross_norm.eq(0).all() for attended in model.attention_maps(tokens, encoded))
    force_open(model)
    maps = model.attention_maps(tokens, encoded)
    for attended in maps:
        assert attended.weights.shape == (3, 2, 7, 5)
        torch.testing.assert_close(attended.weights.sum(-1), torch.ones(3, 2, 7))
        assert attended.weights.masked_select(~encoded.mask[:, None, None, :]).eq(0).all()
        assert attended.cross_norm.gt(0).all()
    # The stream that the last layer's cross-attention meets decides the logits: follow it by hand.
    x = model.embedding(tokens)
    layers = cast("list[LockingDecoderLayer]", list(model.decoder.layers))
    for layer, memory, attended in zip(layers, model.decoder.remember(encoded), maps, strict=True):
        met = layer.attend(x, causal=True)
        torch.testing.assert_close(attended.residual_norm, met.norm(dim=-1))
        x = layer(x, memory)
    torch.testing.assert_close(model.logits(model.decoder.norm(x)), model(tokens, encoded))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda m, e: m.unlock(), r"unlock\(\) before attach\(\): call attach"),
        (
            lambda m, e: m.generate(e, bos_id=1, eos_id=2, pad_id=0),
            r"generation before attach\(\): call attach",
        ),
        (lambda m, e: m.attention_maps(token_batch(), e), r"call unlock\(\) first"),
        (lambda m, e: m(token_batch(length=17)), "17 tokens is longer than decoder.max_len=16"),
        (lambda m, e: m.attach(cross_attention_config(), 0), "encoder_dim=0"),
        (
            lambda m, e: m.attach(cross_attention_config(d_k=0), 8),
            "^cross_attention.d_k=0: use a whole number",
        ),
        (
            lambda m, e: m.attach(cross_attention_config(unlock="open"), 8),
            "^cross_attention.unlock=open: use zero",
        ),
    ],
)
def test_misuse_is_refused_plainly(act: Any, message: str) -> None:
    with pytest.raises(LockdecError, match=message):
        act(locking_model(), encoded_batch())


def test_an_unlocked_model_needs_states_of_the_width_it_was_attached_with() -> None:
    model, tokens = locking_model(), token_batch()
    model.attach(cross_attention_config(), ENCODER_DIM)
    model.unlock()
    with pytest.raises(LockdecError, match=r"needs an encoded input: pass one, or call lock\(\)"):
        model(tokens)
    with pytest.raises(LockdecError, match=r"states are 11 wide.*encoder_dim=10"):
        model(tokens, encoded_batch(dim=11))
