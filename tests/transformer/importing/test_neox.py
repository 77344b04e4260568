"""GPT-NeoX, in parallel or not, is what `transformers` computes and generates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from lockdec.errors import LockdecError
from lockdec.transformer.models import LockingDecoderModel
from tests.transformer.importing.families import VOCAB, require_same, shaken

NEOX: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
}
CHECKPOINTS: dict[str, Callable[[], Any]] = {
    "neox": lambda: shaken(GPTNeoXForCausalLM(GPTNeoXConfig(**NEOX))),
    "neox, one after the other": lambda: shaken(
        GPTNeoXForCausalLM(GPTNeoXConfig(**NEOX, use_parallel_residual=False, tie_word_embeddings=True))
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_it_computes_and_generates_what_transformers_does(name: str, tmp_path: Path) -> None:
    require_same(CHECKPOINTS[name](), tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**NEOX, attention_bias=False)), "attention_bias=False is not"),
        (lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**NEOX, hidden_act="silu")), "hidden_act=silu is not supported"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(LockdecError, match=message):
        LockingDecoderModel.from_huggingface(make())
