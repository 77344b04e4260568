"""GPT-2, also with its own cross-attention, is what `transformers` computes and generates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lockdec.errors import LockdecError
from lockdec.transformer.models import Encoded, LockingDecoderModel
from tests.transformer.importing.families import BOS, EOS, PAD, gpt2, require_same, tokens
from tests.transformer.tiny_transformers import encoded_batch, make_talkative, shake

CHECKPOINTS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: gpt2(),
    "gpt2, relu, narrow": lambda: gpt2(activation_function="relu", n_inner=20, n_head=2, n_layer=1),
    "gpt2, exact gelu, eps, untied": lambda: gpt2(
        activation_function="gelu", layer_norm_epsilon=1e-3, tie_word_embeddings=False
    ),
    "gpt2, reordered": lambda: gpt2(reorder_and_upcast_attn=True),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_it_computes_and_generates_what_transformers_does(name: str, tmp_path: Path) -> None:
    require_same(CHECKPOINTS[name](), tmp_path)


def seeing_gpt2(seed: int = 0) -> tuple[Any, LockingDecoderModel, Encoded]:
    """A GPT-2 with cross-attention, the same imported, and something to attend to."""
    theirs = gpt2(add_cross_attention=True)
    shake(theirs, seed)
    make_talkative(theirs.transformer.wte.weight, theirs.transformer.ln_f, EOS, seed)
    theirs.config.bos_token_id = theirs.generation_config.bos_token_id = BOS
    theirs.generation_config.eos_token_id, theirs.generation_config.pad_token_id = EOS, PAD
    return (
        theirs,
        LockingDecoderModel.from_huggingface(theirs).eval(),
        encoded_batch(rows=4, seed=seed, dim=12),
    )


def test_an_unlocked_decoder_is_gpt2_with_cross_attention() -> None:
    theirs, ours, encoded = seeing_gpt2()
    assert not ours.locked
    theirs_sees: dict[str, Tensor] = {
        "encoder_hidden_states": encoded.states,
        "encoder_attention_mask": encoded.mask.long(),
    }
    expected = theirs(tokens(rows=4), **theirs_sees).logits
    torch.testing.assert_close(ours(tokens(rows=4), encoded), expected, atol=1e-4, rtol=0)
    without_encoder = theirs(tokens(rows=4)).logits
    assert (expected - without_encoder).abs().max() > 0.1
    ours.lock()
    torch.testing.assert_close(ours(tokens(rows=4)), without_encoder, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_new_tokens": 5},
        {"repetition_penalty": 1.5},
        {"no_repeat_ngram_size": 2},
        {"num_beams": 2},
        {"num_beams": 4},
        {"num_beams": 4, "length_penalty": 0.0},
        {"num_beams": 3, "length_penalty": 2.0},
        {"num_beams": 3, "early_stopping": True},
        {"num_beams": 3, "min_new_tokens": 4, "no_repeat_ngram_size": 2},
        {"num_beams": 3, "repetition_penalty": 1.5, "length_penalty": 0.5},
    ],
)
def test_greedy_and_beam_search_generate_what_transformers_does(options: dict[str, Any]) -> None:
    renamed = {"num_beams": "beams", "no_repeat_ngram_size": "no_repeat_ngram"}
    ends = 0
    for seed in range(4):
        theirs, ours, encoded = seeing_gpt2(seed)
        expected = theirs.generate(
            torch.full((4, 1), BOS),
            encoder_hidden_states=encoded.states,
            encoder_attention_mask=encoded.mask.long(),
            max_new_tokens=10,
            do_sample=False,
            use_cache=False,
            **options,
        )[:, 1:]
        generated = ours.generate(
            encoded,
            bos_id=BOS,
            eos_id=EOS,
            pad_id=PAD,
            max_new_tokens=10,
            strategy="beam" if "num_beams" in options else "greedy",
            **{renamed.get(name, name): value for name, value in options.items()},
        )
        assert generated.tolist() == expected.tolist()
        ends += int((generated == EOS).any(1).sum())
    assert 0 < ends < 16, "some should end and some should not"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gpt2(activation_function="silu"), "activation_function=silu is not supported"),
        (lambda: gpt2(scale_attn_weights=False), "scale_attn_weights=False is not supported"),
        (
            lambda: gpt2(scale_attn_by_inverse_layer_idx=True),
            "scale_attn_by_inverse_layer_idx=True is not supported",
        ),
    ],
)
def test_what_is_not_supported_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(LockdecError, match=message):
        LockingDecoderModel.from_huggingface(make())
