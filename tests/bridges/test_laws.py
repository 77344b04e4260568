"""Laws that every bridge obeys, as cross-attention does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lockdec.errors import LockdecError
from lockdec.evaluation.stored import BRIDGE, BRIDGE_WEIGHTS, decoder_fingerprint, put_bridge, save_bridge
from lockdec.store.reading import read_object
from lockdec.transformer.fast import Packing
from lockdec.transformer.models import Encoded, PlugBatch
from tests.bridges.kinds import KINDS, bridged
from tests.runtime.second_device import SECOND, second_device
from tests.transformer.decoding.test_generation import by_definition, unpadded
from tests.transformer.tiny_transformers import (
    ENCODER_DIM,
    IDS,
    VOCAB,
    close,
    encoded_batch,
    final_norm,
    locking_model,
    make_talkative,
    token_batch,
)

STYLES: list[dict[str, Any]] = [
    {"position": "learned"},
    {"position": "rope", "norm": "post", "norm_kind": "rms", "kv_heads": 1, "activation": "swiglu", "bias": "none"},
]
LEARNING = [kind for kind in KINDS if kind != "retrieval"]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_style = pytest.mark.parametrize("style", STYLES, ids=lambda style: style["position"])


@every_kind
@every_style
def test_locked_it_is_the_gpt_bit_for_bit(kind: str, style: dict[str, Any]) -> None:
    plain = locking_model(**style)
    make_talkative(plain.embedding.tokens.weight, final_norm(plain), 2, 0)
    model, tokens, encoded = bridged(kind, **style), token_batch(), encoded_batch()
    assert not model(tokens, encoded).equal(plain(tokens))
    model.lock()
    assert model.locked
    assert model(tokens, encoded).equal(plain(tokens))
    assert model(tokens).equal(plain(tokens))
    model.unlock()
    assert not model(tokens, encoded).equal(plain(tokens))


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_it_has_learned_is_read_again_bit_for_bit(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    learned, again = bridged(kind), locking_model().to(dtype)
    save_bridge(learned, tmp_path)
    put_bridge(again, tmp_path / BRIDGE, read_object(tmp_path / BRIDGE), tmp_path / BRIDGE_WEIGHTS)
    assert learned.bridge is not None
    assert again.bridge is not None
    wanted, found = learned.bridge.state_dict(), again.bridge.state_dict()
    assert found.keys() == wanted.keys()
    assert all(found[name].equal(weight) for name, weight in wanted.items())


@every_kind
def test_unlocked_it_moves_to_another_device_with_all_that_locking_brings_back(kind: str) -> None:
    model, tokens, encoded = bridged(kind), token_batch(), encoded_batch()
    unlocked = model(tokens, encoded)
    model.lock()
    locked = model(tokens)
    model.unlock()
    with second_device():
        model.to(SECOND)
        there = tokens.to(SECOND), encoded.to(SECOND)
        close(model(*there).cpu(), unlocked)
        model.lock()
        close(model(there[0]).cpu(), locked)


@every_kind
def test_every_input_matters_to_its_own_row_and_masked_states_to_none(kind: str) -> None:
    model, tokens, encoded = bridged(kind), token_batch(), encoded_batch()
    before, states = model(tokens, encoded), encoded.states.clone()
    states[1, 0] += 10 * torch.arange(ENCODER_DIM)
    after = model(tokens, Encoded(states, encoded.mask))
    assert (after[1] != before[1]).any(-1).all()
    assert after[[0, 2]].equal(before[[0, 2]])
    close(model(tokens, Encoded(encoded.states.masked_fill(~encoded.mask[..., None], 1e3), encoded.mask)), before)


@every_kind
@every_style
def test_a_row_depends_on_neither_its_batch_nor_later_tokens(kind: str, style: dict[str, Any]) -> None:
    model, tokens, encoded = bridged(kind, **style), token_batch(), encoded_batch()
    together, changed = model(tokens, encoded), tokens.clone()
    for row in range(3):
        one = torch.tensor([row])
        close(model(tokens[one], encoded.index(one)), together[one])
    changed[:, 4:] = (changed[:, 4:] + 1) % VOCAB
    assert model(changed, encoded)[:, :4].equal(together[:, :4])


@pytest.mark.parametrize("kind", LEARNING)
@every_style
def test_leaving_padding_out_changes_neither_output_nor_gradient(kind: str, style: dict[str, Any]) -> None:
    model, tokens, encoded = bridged(kind, **style), token_batch(), encoded_batch()
    real = torch.arange(7) < torch.tensor([[7], [3], [5]])
    trained = list(model.bridge_parameters().values())

    def gradients(hidden: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(model.logits(hidden).square().mean(), trained)

    packed, padded = model.real_hidden(tokens, Packing(real), encoded)[:15], model.hidden(tokens, encoded)[real]
    close(packed, padded)
    for ours, theirs in zip(gradients(packed), gradients(padded), strict=True):
        assert theirs.ne(0).any()
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=2e-3)


@every_kind
@every_style
def test_steps_from_the_cache_are_the_forward_pass(kind: str, style: dict[str, Any]) -> None:
    model, tokens, encoded = bridged(kind, **style), token_batch(), encoded_batch()
    whole, cache = model(tokens, encoded), model.cache(encoded, max_len=7)
    close(model.prefill(tokens[:, :3], cache), whole[:, 2])
    for t in range(3, 7):
        close(model.step(tokens[:, t : t + 1], cache), whole[:, t])


@every_kind
@every_style
@pytest.mark.parametrize("prompt", [[], [4, 9]], ids=["alone", "prompted"])
def test_generation_equals_its_definition(kind: str, style: dict[str, Any], prompt: list[int]) -> None:
    model, encoded = bridged(kind, **style), encoded_batch(rows=4)
    for options in ({"strategy": "greedy"}, {"strategy": "beam", "beams": 3}, {"strategy": "top_k", "top_k": 4}):
        noise = torch.Generator().manual_seed(3)
        found = model.generate(encoded, **IDS, max_new_tokens=6, prompt=prompt, generator=noise, **options)
        assert unpadded(found) == by_definition(model, encoded, 6, 3, options, prompt)


@pytest.mark.parametrize("kind", LEARNING)
def test_only_the_bridge_learns(kind: str) -> None:
    model, tokens, encoded = bridged(kind), token_batch(), encoded_batch()
    frozen, trained = decoder_fingerprint(model), model.bridge_parameters()
    before = {name: weight.detach().clone() for name, weight in trained.items()}
    model.freeze_decoder()
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    model(tokens, encoded).square().mean().backward()
    optimizer.step()
    assert all(not weight.equal(before[name]) for name, weight in trained.items())
    assert decoder_fingerprint(model) == frozen


@every_kind
def test_a_sequence_has_the_room_that_the_bridge_leaves(kind: str) -> None:
    model, encoded = bridged(kind), encoded_batch()
    assert model.bridge is not None
    assert model.room == 16 - model.bridge.positions
    assert model(token_batch(length=model.room), encoded).shape[1] == model.room
    if model.bridge.positions:
        with pytest.raises(LockdecError, match=r"17 tokens is longer than decoder\.max_len=16"):
            model(token_batch(length=model.room + 1), encoded)
        with pytest.raises(LockdecError, match=r"17 tokens is longer than decoder\.max_len=16"):
            model.cache(encoded, max_len=model.room + 1)


@every_kind
def test_misuse_is_refused_plainly(kind: str) -> None:
    model, tokens = bridged(kind), token_batch()
    with pytest.raises(LockdecError, match="needs an encoded input: pass one"):
        model(tokens)
    with pytest.raises(LockdecError, match=r"states are 4 wide.*encoder_dim=10"):
        model(tokens, encoded_batch(dim=4))
    with pytest.raises(LockdecError, match=r"rows of several plugs need cross-attention alone, not \w+"):
        model(tokens, PlugBatch(3, ()))
