"""How long a dry run over many cells takes: python -m benchmarks start_dry."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.commands import imports, python
from benchmarks.side_by_side import Subject

TITLE = (
    "`python -m lockdec.run -m ... dry_run=true` of a sweep of 120 cells over d_k, d_v and the seed; beside "
    "importing torch and lightning"
)
UNIT = "dry runs"
GOALS: Mapping[str, float] = {}
AXES = ("cross_attention.d_k=1,2,4,8,16", "cross_attention.d_v=1,2,4,8", "seed=0,1,2,3,4,5")


def subjects() -> Mapping[str, Callable[[], Subject]]:
    """The command, and its imports alone."""
    return {
        "lockdec": lambda: python("-m", "lockdec.run", "-m", "dry_run=true", *AXES),
        "imports": lambda: imports("torch", "lightning"),
    }
