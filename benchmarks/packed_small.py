"""Packing cells where overhead weighs most: python -m benchmarks packed_small; see `benchmarks.packed`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from benchmarks import packed
from benchmarks.packed import CELLS, GOALS, UNIT
from benchmarks.side_by_side import Subject

__all__ = ["GOALS", "TITLE", "UNIT", "subjects"]

TITLE = (
    f"A finetuning step of {CELLS} cells with heads of 8 dimensions on a small decoder (d_model 64, 2 layers) with 8 "
    "captions a batch: one after the other, packed into one model, and one after the other in two processes of a "
    "thread each"
)


def size() -> packed.Size:
    """A decoder whose products are small."""
    usual = packed.default_size()
    decoder = replace(usual.decoder, d_model=64, layers=2, heads=4, kv_heads=None, d_ff=256)
    return packed.Size(decoder, batch_size=8)


def subjects() -> Mapping[str, Callable[[], Subject]]:
    """The three ways at this size."""
    return packed.subjects_of(size)
