"""A default run that finds every stage made: python -m benchmarks start_warm.

Missing stages are first made in the store ($LOCKDEC_OUTPUTS or outputs/), which takes minutes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from benchmarks.commands import imports, python
from benchmarks.side_by_side import ROOT, Subject

TITLE = (
    "`python -m lockdec.run` with every stage reused, including its W&B run and report; beside importing torch, "
    "lightning and wandb and waiting 3 s"
)
UNIT = "runs"
GOALS = {"imports and 3 s": 1.0}


def warm(*overrides: str) -> Subject:
    """A run that finds everything made."""
    outputs = os.environ.get("LOCKDEC_OUTPUTS", str(ROOT / "outputs"))
    return python("-m", "lockdec.run", "name=start_warm", f"paths.outputs={outputs}", *overrides)


def subjects() -> Mapping[str, Callable[[], Subject]]:
    """The command, with and without loggers, and imports with 3 s of waiting."""
    return {
        "lockdec": warm,
        "lockdec without loggers": lambda: warm("logger=none"),
        "imports and 3 s": lambda: imports("torch", "lightning", "wandb", then=3.0),
    }
