"""Encoders, masked language models and translators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lockdec.errors import ConfigError, LockdecError
from lockdec.transformer.models import DecoderModel, EncoderModel, MaskedLanguageModel, TransformerModel
from tests.transformer.tiny_transformers import (
    CHOICES,
    ENCODER_DIM,
    VOCAB,
    close,
    decoder_config,
    encoded_batch,
    encoder_config,
    shake,
    token_batch,
)


@settings(max_examples=25, deadline=None)
@given(CHOICES, st.integers(0, 99), st.integers(1, 6))
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
