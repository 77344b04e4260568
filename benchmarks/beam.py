"""How fast captions are written by beam search."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.captioner import lockdec, transformers
from benchmarks.side_by_side import Subject

TITLE = (
    "Captions of 32 drawings by beam search with 4 beams, up to 32 tokens, ending by themselves; decoder of d_model "
    "192, 4 layers, 6 heads, vocabulary 2,048; 64 states each"
)
UNIT = "captions"
GOALS = {"transformers": 2.0}


def subjects() -> dict[str, Callable[[], Subject]]:
    """Given the same weights, writing the same captions."""
    return {
        "lockdec": lambda: lockdec(32, strategy="beam", beams=4),
        "transformers": lambda: transformers(32, strategy="beam", beams=4),
    }
