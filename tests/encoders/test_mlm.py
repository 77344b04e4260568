"""The text encoder that is pretrained here: its states are the layers' outputs, saved and opened again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lockdec.data.tokenizer import Tokenizer, train_tokenizer
from lockdec.encoders.mlm import (
    MaskedLanguageModelEncoder,
    PretrainedMaskedLanguageModel,
    save_masked_language_model,
)
from lockdec.errors import ConfigError, DataError
from lockdec.transformer.models import EncoderConfig, MaskedLanguageModel
from tests.encoders.kinds import TEXTS


@pytest.fixture
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 300)


@pytest.fixture
def model(tokenizer: Tokenizer) -> MaskedLanguageModel:
    torch.manual_seed(0)
    vocab_size = tokenizer.vocab_size + 1  # and the mask
    config = EncoderConfig(vocab_size, max_len=16, d_model=16, layers=2, heads=2, d_ff=32, dropout=0.1)
    return MaskedLanguageModel(config)


def test_a_text_that_fits_is_read_whole(model: MaskedLanguageModel, tokenizer: Tokenizer) -> None:
    encoder = MaskedLanguageModelEncoder(model, tokenizer, [0])
    words = [*"abcdefghijklmnopq"]
    for count in range(1, len(words)):
        text = " ".join(words[:count])
        tokens = encoder.preprocess([text])[0].tolist()
        assert encoder.reads_whole(text) == (tokens[-1] == tokenizer.special.eos)
    assert not encoder.reads_whole(text)


def test_states_are_the_outputs_of_the_layers_side_by_side(model: MaskedLanguageModel, tokenizer: Tokenizer) -> None:
    encoder = MaskedLanguageModelEncoder(model, tokenizer, [2, 0])
    assert (encoder.groups, encoder.dim) == ((16, 16), 32)
    tokens = encoder.preprocess(TEXTS[:3])
    encoded = encoder.encode(TEXTS[:3])
    assert encoded.mask.equal(tokens != 0)
    mask = encoded.mask
    torch.testing.assert_close(encoded.states[..., :16][mask], model.encoder(tokens, mask)[mask])
    assert encoded.states[..., 16:][mask].equal(model.encoder.embedding(tokens)[mask])


def test_a_text_longer_than_the_model_is_cut(model: MaskedLanguageModel, tokenizer: Tokenizer) -> None:
    encoder = MaskedLanguageModelEncoder(model, tokenizer, [2])
    long, longer = (encoder.encode(["z" * count]) for count in (40, 99))
    assert long.states.shape == (1, 16, 16)
    assert longer.states.equal(long.states)


def test_a_saved_model_is_opened_with_the_same_states(
    model: MaskedLanguageModel, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_masked_language_model(model, tokenizer, tmp_path)
    opened = PretrainedMaskedLanguageModel(layers=[0, 1, 2]).open(tmp_path)
    encoder = MaskedLanguageModelEncoder(model, tokenizer, [0, 1, 2])
    assert opened.encode(TEXTS).states.equal(encoder.encode(TEXTS).states)
    assert PretrainedMaskedLanguageModel(layers=[0, 1, 2]).open(tmp_path).fingerprint == opened.fingerprint
    assert PretrainedMaskedLanguageModel(layers=[2]).open(tmp_path).fingerprint != opened.fingerprint


@pytest.mark.parametrize("layers", [[], [3], [1, 1], [-1]])
def test_layers_that_are_not_there_are_refused(
    layers: list[int], model: MaskedLanguageModel, tokenizer: Tokenizer
) -> None:
    with pytest.raises(
        ConfigError, match=r"encoder\.layers=\[.*\]: one or more of 0 \(the embeddings\) to 2, each once"
    ):
        MaskedLanguageModelEncoder(model, tokenizer, layers)


def test_only_texts_are_read(model: MaskedLanguageModel, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="reads texts"):
        MaskedLanguageModelEncoder(model, tokenizer, [2]).preprocess(["a", torch.zeros(3).numpy()])
