"""Rivals of low-dimensional cross-attention, one class each, and how their sizes are chosen by a budget.

Each reads the same states of the same frozen encoder, and is trained on the same support set. Cross-attention itself is
in `lockdec.transformer`, and `lockdec.transformer.bridge` says what a bridge is.
"""

from __future__ import annotations

import inspect

from lockdec.bridges.prefix import LinearPrefix, MLPPrefix, StatePrefix
from lockdec.bridges.resampler import Resampler
from lockdec.bridges.retrieval import Retrieval, RetrievalWithCrossAttention
from lockdec.bridges.tuning import Full, LoRA
from lockdec.transformer.bridge import Bridge

__all__ = [
    "Bridge",
    "Full",
    "LinearPrefix",
    "LoRA",
    "MLPPrefix",
    "Resampler",
    "Retrieval",
    "RetrievalWithCrossAttention",
    "StatePrefix",
    "known",
]


def known() -> dict[str, type[Bridge]]:
    """The classes of all bridges, by kind: lockdec's own, and those of modules that have been imported."""
    found: dict[str, type[Bridge]] = {}
    classes = [*Bridge.__subclasses__()]
    while classes:
        one = classes.pop()
        classes += one.__subclasses__()
        if not inspect.isabstract(one) and "kind" in vars(one):
            found[one.kind] = one
    return found
