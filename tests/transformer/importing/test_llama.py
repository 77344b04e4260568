"""Llama and its near relatives are what `transformers` computes and generates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from lockdec.errors import LockdecError
from lockdec.transformer.models import LockingDecoderModel
from tests.transformer.importing.families import llama_sizes, require_same, shaken

LLAMA31 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
CHECKPOINTS: dict[str, Callable[[], Any]] = {
    "llama": lambda: shaken(LlamaForCausalLM(LlamaConfig(**llama_sizes()))),
    "llama, wide": lambda: shaken(LlamaForCausalLM(LlamaConfig(**llama_sizes(hidden_size=32, intermediate_size=64)))),
    "llama, tied": lambda: shaken(LlamaForCausalLM(LlamaConfig(**llama_sizes(tie_word_embeddings=True)))),
    "llama, all heads, biases": lambda: shaken(
        LlamaForCausalLM(
            LlamaConfig(**llama_sizes(num_key_value_heads=4, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-3))
        )
    ),
    "llama 3.1": lambda: shaken(
        LlamaForCausalLM(LlamaConfig(**llama_sizes(num_key_value_heads=1, rope_parameters=LLAMA31)))
    ),
    "llama, wide heads": lambda: shaken(LlamaForCausalLM(LlamaConfig(**llama_sizes(head_dim=6)))),
    "mistral": lambda: shaken(MistralForCausalLM(MistralConfig(**llama_sizes(head_dim=8, sliding_window=20)))),
    "qwen3": lambda: shaken(Qwen3ForCausalLM(Qwen3Config(**llama_sizes(head_dim=128)))),
    "smollm3": lambda: shaken(
        SmolLM3ForCausalLM(SmolLM3Config(**llama_sizes(no_rope_layers=[1, 0, 1], pad_token_id=2)))
    ),
    "qwen2": lambda: shaken(Qwen2ForCausalLM(Qwen2Config(**llama_sizes()))),
    "qwen2, tied": lambda: shaken(
        Qwen2ForCausalLM(
            Qwen2Config(
                **llama_sizes(tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1000.0})
            )
        )
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_it_computes_and_generates_what_transformers_does(name: str, tmp_path: Path) -> None:
    require_same(CHECKPOINTS[name](), tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LlamaForCausalLM(LlamaConfig(**llama_sizes(hidden_act="gelu"))), "hidden_act=gelu is not"),
        (lambda: LlamaForCausalLM(LlamaConfig(**llama_sizes(mlp_bias=True))), "attention_bias=False is not"),
        (
            lambda: LlamaForCausalLM(
                LlamaConfig(**llama_sizes(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}))
            ),
            "rope_type=linear is not supported",
        ),
        (
            lambda: Qwen2ForCausalLM(Qwen2Config(**llama_sizes(use_sliding_window=True))),
            "use_sliding_window=True is not supported",
        ),
        (
            lambda: SmolLM3ForCausalLM(
                SmolLM3Config(
                    **llama_sizes(
                        pad_token_id=2, sliding_window=4, layer_types=["sliding_attention"] + 2 * ["full_attention"]
                    )
                )
            ),
            "sliding_attention in layer_types is not supported",
        ),
    ],
)
def test_what_is_not_supported_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(LockdecError, match=message):
        LockingDecoderModel.from_huggingface(make())
