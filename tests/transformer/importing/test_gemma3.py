"""Gemma 3 is what `transformers` computes and generates, within the window of its local layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from lockdec.errors import LockdecError
from lockdec.transformer.models import LockingDecoderModel
from tests.transformer.importing.families import llama_sizes, require_same, shaken, tokens


def gemma3(**changes: Any) -> Any:
    """A tiny Gemma 3 with random weights, two of whose three layers are local."""
    own: dict[str, Any] = {
        "head_dim": 6,
        "sliding_window": 20,
        "query_pre_attn_scalar": 6,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    }
    return shaken(Gemma3ForCausalLM(Gemma3TextConfig(**llama_sizes(**(own | changes)))))


def test_it_computes_and_generates_what_transformers_does(tmp_path: Path) -> None:
    require_same(gemma3(), tmp_path)


@pytest.mark.parametrize(("window", "room"), [(8, 8), (50, 20)])
def test_texts_have_to_stay_within_the_window_of_its_local_layers(window: int, room: int) -> None:
    """Within it, a local layer attends as every other."""
    theirs = gemma3(sliding_window=window)
    ours = LockingDecoderModel.from_huggingface(theirs).eval()
    assert ours.config.max_len == room
    torch.testing.assert_close(ours(tokens(length=room)), theirs(tokens(length=room)).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gemma3(attention_bias=True), "attention_bias=True is not supported"),
        (lambda: gemma3(final_logit_softcapping=30.0), r"final_logit_softcapping=30\.0 is not supported"),
        (lambda: gemma3(query_pre_attn_scalar=7), r"query_pre_attn_scalar=7 is not supported \(only 6\)"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(LockdecError, match=message):
        LockingDecoderModel.from_huggingface(make())
