"""Laws that every model obeys, whatever its sizes and choices."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lockdec.errors import ConfigError, LockdecError
from lockdec.transformer.configuration import UNLOCKS
from lockdec.transformer.fast import Packing
from lockdec.transformer.models import (
    AutoregressiveModel,
    DecoderModel,
    Encoded,
    EncoderModel,
    LockingDecoderModel,
    MaskedLanguageModel,
    TransformerModel,
)
from tests.transformer.tiny_transformers import (
    ENCODER_DIM,
    VOCAB,
    cross_attention_config,
    decoder_config,
    encoded_batch,
    encoder_config,
    force_open,
    locking_model,
    shake,
    token_batch,
)

laws = settings(max_examples=25, deadline=None)
choices = st.fixed_dictionaries(
    {
        "norm": st.sampled_from(["pre", "post"]),
        "position": st.sampled_from(["learned", "sinusoidal", "rope"]),
        "norm_kind": st.sampled_from(["layer", "rms"]),
        "activation": st.sampled_from(["relu", "gelu", "gelu_tanh", "swiglu"]),
        "bias": st.sampled_from(["all", "qkv", "none"]),
        "kv_heads": st.sampled_from([None, 1]),
        "tied": st.booleans(),
        "layers": st.integers(1, 3),
    }
)
crosses = st.fixed_dictionaries(
    {
        "heads": st.integers(1, 4),
        "d_q": st.integers(1, 4),
        "d_k": st.integers(1, 4),
        "d_v": st.integers(1, 4),
        "unlock": st.sampled_from(UNLOCKS),
        "bias": st.booleans(),
    }
)
seeds = st.integers(0, 99)


def seeing(choice: dict[str, Any], cross: dict[str, Any] | None, seed: int) -> AutoregressiveModel:
    """A decoder that looks: an unlocked and opened one, or, without `cross`, the book's."""
    if cross is None:
        book = DecoderModel(decoder_config(**choice), ENCODER_DIM).eval()
        shake(book, seed)
        return book
    model = locking_model(seed, **choice)
    model.attach(cross_attention_config(**cross), ENCODER_DIM)
    force_open(model, seed)
    model.unlock()
    return model


def close(ours: Tensor, theirs: Tensor) -> None:
    """Equal but for the order of summation."""
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-4)


@laws
@given(choices, st.none() | crosses, seeds, st.integers(1, 6))
def test_a_later_token_never_changes_an_earlier_logit(
    choice: dict[str, Any], cross: dict[str, Any] | None, seed: int, cut: int
) -> None:
    model, tokens, encoded = seeing(choice, cross, seed), token_batch(seed=seed), encoded_batch(seed=seed)
    changed = tokens.clone()
    changed[:, cut:] = (changed[:, cut:] + 1) % VOCAB
    before, after = model(tokens, encoded), model(changed, encoded)
    assert torch.equal(before[:, :cut], after[:, :cut])
    assert not torch.equal(before[:, cut:], after[:, cut:])


@laws
@given(choices, st.none() | crosses, seeds, st.integers(1, 6))
def test_padding_changes_nothing(choice: dict[str, Any], cross: dict[str, Any] | None, seed: int, extra: int) -> None:
    model, tokens, encoded = seeing(choice, cross, seed), token_batch(seed=seed), encoded_batch(seed=seed)
    longer = torch.cat((tokens, torch.zeros(3, extra, dtype=torch.long)), dim=1)
    junk = torch.full((3, extra, ENCODER_DIM), 1e3)
    wider = Encoded(
        torch.cat((encoded.states, junk), dim=1),
        torch.cat((encoded.mask, torch.zeros(3, extra, dtype=torch.bool)), dim=1),
    )
    close(model(longer, wider)[:, : tokens.shape[1]], model(tokens, encoded))


@laws
@given(choices, st.none() | crosses, seeds, st.permutations(range(5)))
def test_the_order_of_encoder_states_does_not_matter(
    choice: dict[str, Any], cross: dict[str, Any] | None, seed: int, order: list[int]
) -> None:
    model, tokens, encoded = seeing(choice, cross, seed), token_batch(seed=seed), encoded_batch(seed=seed)
    close(model(tokens, Encoded(encoded.states[:, order], encoded.mask[:, order])), model(tokens, encoded))


@laws
@given(choices, st.none() | crosses, seeds)
def test_a_row_does_not_depend_on_its_batch(choice: dict[str, Any], cross: dict[str, Any] | None, seed: int) -> None:
    model, tokens, encoded = seeing(choice, cross, seed), token_batch(seed=seed), encoded_batch(seed=seed)
    together = model(tokens, encoded)
    for row in range(3):
        one = torch.tensor([row])
        close(model(tokens[one], encoded.index(one)), together[one])


@laws
@given(choices, st.none() | crosses, seeds, st.lists(st.integers(1, 7), min_size=3, max_size=3))
def test_leaving_padding_out_changes_neither_output_nor_gradient(
    choice: dict[str, Any], cross: dict[str, Any] | None, seed: int, lengths: list[int]
) -> None:
    model, tokens, encoded = seeing(choice, cross, seed), token_batch(seed=seed), encoded_batch(seed=seed)
    real = torch.arange(7) < torch.tensor(lengths)[:, None]
    parameters = list(model.parameters())

    def gradients(hidden: Tensor) -> tuple[Tensor, ...]:
        found = torch.autograd.grad(model.logits(hidden).square().mean(), parameters, allow_unused=True)
        return tuple(torch.zeros(1) if gradient is None else gradient for gradient in found)

    packing = Packing(real)
    assert len(packing.positions) == min(21, 8 * math.ceil(sum(lengths) / 8))
    packed, padded = model.real_hidden(tokens, packing, encoded)[: sum(lengths)], model.hidden(tokens, encoded)[real]
    close(packed, padded)
    for ours, theirs in zip(gradients(packed), gradients(padded), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=2e-3)


@laws
@given(choice=choices, cross=crosses, seed=seeds, share=st.floats(0, 1))
def test_leaving_masked_states_out_changes_nothing(
    choice: dict[str, Any], cross: dict[str, Any], seed: int, share: float
) -> None:
    model, tokens, states = seeing(choice, cross, seed), token_batch(), encoded_batch().states
    mask = torch.rand(states.shape[:2], generator=torch.Generator().manual_seed(seed)) < share
    trimmed = Encoded(states, mask).trimmed()
    assert trimmed.states.shape[1] == max(1, int(mask.sum(1).max()))
    assert trimmed.states[trimmed.mask].equal(states[mask])  # all of them, in their order
    close(model(tokens, trimmed), model(tokens, Encoded(states, mask)))


@laws
@given(choices, crosses, seeds)
def test_a_row_without_states_is_a_locked_row(choice: dict[str, Any], cross: dict[str, Any], seed: int) -> None:
    model = seeing(choice, cross, seed)
    assert isinstance(model, LockingDecoderModel)
    tokens, encoded = token_batch(seed=seed), encoded_batch(seed=seed)
    encoded.mask[1] = False
    encoded.states.requires_grad_()
    logits = model(tokens, encoded)
    logits.square().sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert encoded.states.grad is not None
    assert encoded.states.grad[1].eq(0).all()
    assert encoded.states.grad[0].ne(0).any()
    model.lock()
    locked = model(tokens)
    assert torch.equal(logits[1], locked[1])
    assert not torch.equal(logits[0], locked[0])


@laws
@given(choices, st.none() | crosses, seeds)
def test_steps_from_the_cache_are_the_forward_pass(
    choice: dict[str, Any], cross: dict[str, Any] | None, seed: int
) -> None:
    model, tokens, encoded = seeing(choice, cross, seed), token_batch(seed=seed), encoded_batch(seed=seed)
    cache, whole = model.cache(encoded, max_len=7), model(tokens, encoded)
    for t in range(7):
        close(model.step(tokens[:, t : t + 1], cache), whole[:, t])


@laws
@given(choices, seeds, st.integers(1, 6))
def test_an_encoder_attends_in_both_directions_but_not_to_padding(
    choice: dict[str, Any], seed: int, length: int
) -> None:
    model = EncoderModel(encoder_config(**choice)).eval()
    shake(model, seed)
    tokens = token_batch(seed=seed)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, length:] = False
    states = model(tokens, mask)
    close(states[1, :length], model(tokens[1:2, :length])[0])
    changed = tokens.clone()
    changed[0, 6] = (changed[0, 6] + 1) % VOCAB
    changed[1, length:] = (changed[1, length:] + 1) % VOCAB
    after = model(changed, mask)
    assert (after[0] != states[0]).any(-1).all()
    assert torch.equal(after[1, :length], states[1, :length])
    encoded = model.encode(tokens, mask)
    assert torch.equal(encoded.states, states)
    assert torch.equal(encoded.mask, mask)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_transformer_joins_encoder_and_decoder(norm: str) -> None:
    source_config, target_config = encoder_config(norm=norm, d_model=18), decoder_config(norm=norm)
    model = TransformerModel(source_config, target_config, pad_id=0).eval()
    shake(model)
    source, target = token_batch(seed=3), token_batch(seed=4)
    source[source == 0] = 1
    source[2, 3:] = 0
    logits = model(source, target)
    assert logits.shape == (3, 7, VOCAB)
    assert torch.equal(logits, model.decoder(target, model.encoder.encode(source, source != 0)))
    wider = torch.cat((source, torch.zeros(3, 4, dtype=torch.long)), dim=1)
    close(model(wider, target), logits)
    for row, place in ((0, 6), (2, 2)):
        changed = source.clone()
        changed[row, place] = changed[row, place] % (VOCAB - 1) + 1
        differs = (model(changed, target) != logits).any(-1)
        assert differs[row].all()
        assert not differs[[other for other in range(3) if other != row]].any()


def test_a_translation_can_be_learned() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"norm": "post", "position": "sinusoidal", "activation": "relu", "d_model": 24}
    model = TransformerModel(encoder_config(**sizes), decoder_config(**sizes))
    source = token_batch(rows=8, length=5) % (VOCAB - 3) + 3
    target = torch.cat((torch.full((8, 1), 1), source.flip(1), torch.full((8, 1), 2)), dim=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(200):
        logits = model(source, target[:, :-1])
        loss: Any = nn.functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    written = model.eval().generate(source, bos_id=1, eos_id=2, pad_id=0, max_new_tokens=8)
    assert torch.equal(written, target[:, 1:])


def test_a_masked_language_model_predicts_every_position() -> None:
    model = MaskedLanguageModel(encoder_config()).eval()
    tokens = token_batch()
    mask = torch.arange(7) < torch.tensor([[7], [5], [2]])
    logits = model(tokens, mask)
    assert logits.shape == (3, 7, VOCAB)
    hidden = model.encoder(tokens, mask)[:, 2]
    close(model.logits(hidden), logits[:, 2])
    assert {name.split(".")[0] for name in model.state_dict()} == {"encoder"}


def test_encoders_and_decoders_name_their_own_keys() -> None:
    with pytest.raises(LockdecError, match=r"17 tokens is longer than encoder.max_len=16"):
        EncoderModel(encoder_config())(token_batch(length=17))
    with pytest.raises(ConfigError, match=r"^encoder.heads=5 does not divide d_model=12"):
        EncoderModel(encoder_config(heads=5))
    book = DecoderModel(decoder_config(), ENCODER_DIM)
    with pytest.raises(LockdecError, match="needs an encoded input: pass one"):
        book(token_batch())
    with pytest.raises(LockdecError, match=r"states are 4 wide.*encoder_dim=10"):
        book(token_batch(), encoded_batch(dim=4))
