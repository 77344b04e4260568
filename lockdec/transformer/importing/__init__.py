"""Decoders that others pretrained, read from safetensors only.

They are our own decoder with other choices, so a family is two tables: our names for its options, and our names for its
weights. To add a family, write a file beside `llama` and register it in `FAMILIES`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from lockdec.errors import LockdecError
from lockdec.transformer.importing.checkpoint import Checkpoint, Family, Options, load
from lockdec.transformer.importing.gpt2 import GPT2
from lockdec.transformer.importing.llama import LLAMA, QWEN2

__all__ = ["Checkpoint", "read"]

FAMILIES: dict[str, Family] = {"gpt2": GPT2, "llama": LLAMA, "qwen2": QWEN2}  # by the `model_type` of transformers


def read(source: nn.Module | str | Path) -> Checkpoint:
    """What `LockingDecoderModel.from_huggingface` loads."""
    model = source if isinstance(source, nn.Module) else load(str(source))
    name = type(model).__name__ if isinstance(source, nn.Module) else str(source)
    options: Any = getattr(model, "config", None)
    family = FAMILIES.get(getattr(options, "model_type", ""))
    if family is None or not hasattr(model, "lm_head"):
        raise LockdecError(f"{name}: not a language model of a family that can be imported ({', '.join(FAMILIES)})")
    theirs = model.state_dict()
    config = family.config(Options(name, options))
    weights = family.weights(theirs, config)
    if not config.tied:
        weights["embedding.untied.weight"] = theirs["lm_head.weight"]
    cross_attention = None
    if family.cross_attention is not None and getattr(options, "add_cross_attention", False):
        cross_attention, more = family.cross_attention(theirs, config)
        weights |= more
    return Checkpoint(config, weights, theirs["lm_head.weight"].dtype, cross_attention)
