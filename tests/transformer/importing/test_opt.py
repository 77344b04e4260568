"""OPT is what `transformers` computes and generates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import OPTConfig, OPTForCausalLM

from lockdec.errors import LockdecError
from lockdec.transformer.models import LockingDecoderModel
from tests.transformer.importing.families import VOCAB, require_same, shaken


def opt(**changes: Any) -> Any:
    """A tiny OPT with random weights."""
    sizes: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 12,
        "word_embed_proj_dim": 12,
        "ffn_dim": 20,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "max_position_embeddings": 20,
        "pad_token_id": 1,
    }
    return shaken(OPTForCausalLM(OPTConfig(**(sizes | changes))))


CHECKPOINTS: dict[str, Callable[[], Any]] = {"opt": opt, "opt, gelu": lambda: opt(activation_function="gelu")}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_it_computes_and_generates_what_transformers_does(name: str, tmp_path: Path) -> None:
    require_same(CHECKPOINTS[name](), tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: opt(word_embed_proj_dim=6), r"word_embed_proj_dim=6 is not supported \(only 12\)"),
        (lambda: opt(do_layer_norm_before=False), "do_layer_norm_before=False is not supported"),
        (lambda: opt(activation_function="silu"), "activation_function=silu is not supported"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(LockdecError, match=message):
        LockingDecoderModel.from_huggingface(make())
