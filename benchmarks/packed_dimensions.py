"""Packing the cells of a sweep over dimensions: python -m benchmarks packed_dimensions; see `benchmarks.packed`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from benchmarks import packed
from benchmarks.packed import CELLS, GOALS, UNIT
from benchmarks.side_by_side import Subject

__all__ = ["GOALS", "TITLE", "UNIT", "subjects"]

TITLE = (
    f"A finetuning step at default sizes (d_model 192, 4 layers, 32 captions a batch) of {CELLS} cells with heads of "
    "1, 2, 4, 8, 16 and 32 dimensions: one after the other, packed into one model whose heads are as large as the "
    "largest, and one after the other in two processes of a thread each"
)


def size() -> packed.Size:
    """The default decoder, heads of all sizes."""
    return replace(packed.default_size(), heads_of=(1, 2, 4, 8, 16, 32))


def subjects() -> Mapping[str, Callable[[], Subject]]:
    """The three ways with these cells."""
    return packed.subjects_of(size)
