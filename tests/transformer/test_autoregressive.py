"""Laws that every decoder obeys, whatever its sizes and choices."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lockdec.transformer.configuration import UNLOCKS
from lockdec.transformer.fast import Packing
from lockdec.transformer.models import AutoregressiveModel, DecoderModel, Encoded, LockingDecoderModel
from tests.transformer.tiny_transformers import (
    CHOICES,
    ENCODER_DIM,
    VOCAB,
    close,
    cross_attention_config,
    decoder_config,
    encoded_batch,
    force_open,
    locking_model,
    shake,
    token_batch,
)

laws = settings(max_examples=25, deadline=None)
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


@laws
@given(CHOICES, st.none() | crosses, seeds, st.integers(1, 6))
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
@given(CHOICES, st.none() | crosses, seeds, st.integers(1, 6))
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
@given(CHOICES, st.none() | crosses, seeds, st.permutations(range(5)))
def test_the_order_of_encoder_states_does_not_matter(
    choice: dict[str, Any], cross: dict[str, Any] | None, seed: int, order: list[int]
) -> None:
    model, tokens, encoded = seeing(choice, cross, seed), token_batch(seed=seed), encoded_batch(seed=seed)
    close(model(tokens, Encoded(encoded.states[:, order], encoded.mask[:, order])), model(tokens, encoded))


@laws
@given(CHOICES, st.none() | crosses, seeds)
def test_a_row_does_not_depend_on_its_batch(choice: dict[str, Any], cross: dict[str, Any] | None, seed: int) -> None:
    model, tokens, encoded = seeing(choice, cross, seed), token_batch(seed=seed), encoded_batch(seed=seed)
    together = model(tokens, encoded)
    for row in range(3):
        one = torch.tensor([row])
        close(model(tokens[one], encoded.index(one)), together[one])


@laws
@given(CHOICES, st.none() | crosses, seeds, st.lists(st.integers(1, 7), min_size=3, max_size=3))
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
@given(choice=CHOICES, cross=crosses, seed=seeds, share=st.floats(0, 1))
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
@given(CHOICES, crosses, seeds)
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
@given(CHOICES, st.none() | crosses, seeds)
def test_steps_from_the_cache_are_the_forward_pass(
    choice: dict[str, Any], cross: dict[str, Any] | None, seed: int
) -> None:
    model, tokens, encoded = seeing(choice, cross, seed), token_batch(seed=seed), encoded_batch(seed=seed)
    cache, whole = model.cache(encoded, max_len=7), model(tokens, encoded)
    for t in range(7):
        close(model.step(tokens[:, t : t + 1], cache), whole[:, t])
