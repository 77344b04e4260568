"""Tiny bridges of every kind, as if long trained, on the tiny decoders of the transformer's tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lockdec.bridges.prefix import LinearPrefix, MLPPrefix, StatePrefix
from lockdec.bridges.resampler import Resampler
from lockdec.bridges.retrieval import Retrieval, RetrievalWithCrossAttention
from lockdec.bridges.tuning import Full, LoRA
from lockdec.transformer.bridge import Bridge
from lockdec.transformer.models import LockingDecoderModel
from tests.transformer.tiny_transformers import (
    ENCODER_DIM,
    EOS,
    cross_attention_config,
    final_norm,
    locking_model,
    make_talkative,
)

CAPTIONS = [[1, 5, 2], [1, 9, 8, 7, 2], [1, 6, 6, 2], [1, 2], [1, 12, 2], [1, 13, 14, 2]]
KINDS: dict[str, Callable[[], Bridge]] = {
    "prefix_linear": lambda: LinearPrefix(length=2),
    "prefix_linear of rank 3": lambda: LinearPrefix(length=3, rank=3),
    "lora": lambda: LoRA(length=1, rank=2),
    "full": lambda: Full(length=1),
    "retrieval": lambda: Retrieval(length=4),
    "retrieval_cross_attention": lambda: RetrievalWithCrossAttention(length=4),
    "resampler": lambda: Resampler(queries=3, width=8, layers=2, heads=2),
    "prefix_mlp": lambda: MLPPrefix(length=2, width=5),
    "prefix_states": lambda: StatePrefix(length=6, width=7),
}


def bridged(kind: str, seed: int = 0, **changes: Any) -> LockingDecoderModel:
    """An unlocked decoder with a bridge of random weights, and with cross-attention where the bridge has some."""
    model = locking_model(seed, **changes)
    make_talkative(model.embedding.tokens.weight, final_norm(model), EOS, seed)
    bridge = KINDS[kind]()
    bridge.draw(model, ENCODER_DIM)
    drawn = torch.Generator().manual_seed(seed + 9)
    bridge.remember(torch.randn(len(CAPTIONS), ENCODER_DIM, generator=drawn), CAPTIONS, range(len(CAPTIONS)))
    model.attach_bridge(bridge)
    if bridge.attended_dim is not None:
        model.attach(cross_attention_config(), bridge.attended_dim)
    generator = torch.Generator().manual_seed(seed + 5)
    with torch.no_grad():
        for weight in model.bridge_parameters().values():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)
    model.unlock()
    return model.eval()
