"""Beam search with captions of full length."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.captioner import LONGEST, lockdec, transformers
from benchmarks.side_by_side import Subject

TITLE = (
    "Captions of 32 drawings by beam search with 4 beams, 32 tokens each; "
    "decoder of d_model 192, 4 layers, 6 heads, vocabulary 2,048; 64 states each"
)
UNIT = "captions"
GOALS = {"transformers": 2.0}


def subjects() -> dict[str, Callable[[], Subject]]:
    """Both have the same weights and generate the same captions."""
    return {
        "lockdec": lambda: lockdec(32, strategy="beam", beams=4, min_new_tokens=LONGEST),
        "transformers": lambda: transformers(32, strategy="beam", beams=4, min_new_tokens=LONGEST),
    }
