"""Sizes and choices: what follows from them, and which are refused, by key."""

from __future__ import annotations

from typing import Any

import pytest

from lockdec.errors import ConfigError
from lockdec.transformer.models import LockingDecoderModel
from tests.transformer.tiny_transformers import (
    ENCODER_DIM,
    IDS,
    captioner,
    cross_attention_config,
    decoder_config,
    encoded_batch,
    locking_model,
    token_batch,
)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("all", [0, 1, 2, 3]),
        ("every_1", [0, 1, 2, 3]),
        ("every_2", [1, 3]),
        ("every_3", [2]),
        ("last_1", [3]),
        ("last_3", [1, 2, 3]),
        ("last_4", [0, 1, 2, 3]),
        ([3, 0], [0, 3]),
    ],
)
def test_layers_with_cross_attention(layers: Any, expected: list[int]) -> None:
    model, tokens, encoded = locking_model(layers=4), token_batch(), encoded_batch()
    model.attach(cross_attention_config(layers=layers), ENCODER_DIM)
    model.unlock()
    numbers = {int(name.split(".")[2]) for name in model.cross_attention_parameters()}
    assert sorted(numbers) == expected
    assert len(model.attention_maps(tokens, encoded)) == len(expected)
    model.attach(cross_attention_config(layers=[1]), ENCODER_DIM)
    assert model.locked
    assert {int(name.split(".")[2]) for name in model.cross_attention_parameters()} == {1}


@pytest.mark.parametrize(
    "layers", ["every_0", "every_5", "every_x", "last_0", "last_5", "last", "some", [], [4], [-1], ["0"], None, 1]
)
def test_layers_that_are_not_there_are_refused(layers: Any) -> None:
    with pytest.raises(ConfigError, match=r"^cross_attention.layers=.*every_n \(n from 1 to 4\)"):
        locking_model(layers=4).attach(cross_attention_config(layers=layers), ENCODER_DIM)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, r"^decoder.heads=5 does not divide d_model=12 \(use 1, 2, 3, 4, 6 or 12\)"),
        ({"kv_heads": 2}, r"^decoder.kv_heads=2 does not divide heads=3 \(use 1 or 3\)"),
        ({"d_ff": 0}, "^decoder.d_ff=0: use a whole number of at least 1"),
        ({"norm": "middle"}, "^decoder.norm=middle: use pre, post, sandwich or parallel"),
        ({"position": "none"}, "^decoder.position=none: use learned, sinusoidal or rope"),
        ({"activation": "tanh"}, "^decoder.activation=tanh: use relu, gelu, gelu_tanh, swiglu or geglu_tanh"),
        ({"dropout": 1.0}, "^decoder.dropout=1.0: use 0 or more and less than 1"),
        ({"d_model": 9, "position": "rope"}, "^decoder.position=rope: d_model / heads has to be even, but is 3"),
        ({"d_model": 9, "position": "sinusoidal"}, "^decoder.position=sinusoidal: d_model has to be even, but is 9"),
    ],
)
def test_an_impossible_decoder_is_refused_by_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LockingDecoderModel(decoder_config(**changes))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "best"}, "^generation.strategy=best: use greedy, beam, nucleus or top_k"),
        ({"max_new_tokens": 0}, "^generation.max_new_tokens=0: use a whole number of at least 1"),
        ({"min_new_tokens": 25}, "^generation.min_new_tokens=25: use 0 to max_new_tokens=24"),
        ({"beams": 0}, "^generation.beams=0"),
        ({"beams": 10**9}, "^generation.beams=1000000000: at most 1000"),
        ({"top_k": 0}, "^generation.top_k=0"),
        ({"top_p": 0.0}, "^generation.top_p=0.0: use a number above 0 and at most 1"),
        ({"temperature": 0.0}, "^generation.temperature=0.0: use a number above 0"),
        ({"repetition_penalty": -1.0}, "^generation.repetition_penalty=-1.0"),
        ({"no_repeat_ngram": -1}, "^generation.no_repeat_ngram=-1"),
    ],
)
def test_an_impossible_option_is_refused_by_key(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        captioner().generate(encoded_batch(), **IDS, **options)


def test_heads_share_the_width_unless_their_size_is_given() -> None:
    config = decoder_config(d_model=24, heads=6, kv_heads=2)
    assert (config.d_head, config.key_heads) == (4, 2)
    assert (decoder_config(d_model=24, heads=6).key_heads, decoder_config(heads=5, head_size=7).d_head) == (6, 7)
    decoder_config(heads=5, head_size=7).check()  # 5 does not divide the width, and need not
    with pytest.raises(ConfigError, match=r"^decoder\.rope_thetas=\[1\.0\]: name one for each layer"):
        decoder_config(rope_thetas=[1.0]).check()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"position": "rope", "kv_heads": 1, "activation": "swiglu", "norm_kind": "rms", "bias": "none"},
        {"position": "sinusoidal", "max_len": 40},
        {"head_size": 8, "layers": 5, "tied": False},
    ],
)
def test_a_transformer_has_at_least_as_many_numbers_as_its_config_says(changes: dict[str, Any]) -> None:
    config = decoder_config(**changes)
    model = LockingDecoderModel(config)
    numbers = sum(tensor.numel() for tensor in [*model.parameters(), *model.buffers()])
    assert 0.4 * numbers < config.least_parameters <= numbers


@pytest.mark.parametrize("changes", [{}, {"d_q": 2}, {"d_k": 5, "bias": True, "heads": 3}])
def test_cross_attention_has_at_least_as_many_weights_as_its_config_says(changes: dict[str, Any]) -> None:
    model, config = locking_model(), cross_attention_config(**changes)
    model.attach(config, ENCODER_DIM)
    weights = sum(weight.numel() for weight in model.cross_attention_parameters().values())
    least = model.config.layers * config.least_parameters(model.config.d_model, ENCODER_DIM)
    assert 0.7 * weights < least <= weights
