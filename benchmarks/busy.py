"""What it costs that threads of torch spin while they wait for each other, where others want the cores, too."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping

from benchmarks.pretraining import ours
from benchmarks.side_by_side import Subject

TITLE = "A pretraining step beside two processes that keep both cores busy; sizes as in pretraining"
UNIT = "tokens"
GOALS: Mapping[str, float] = {}
LONG = "OpenMP's default spin count"
ENVIRONMENT = {LONG: {"GOMP_SPINCOUNT": "300000"}}  # what GNU's OpenMP takes where nothing is said
NEIGHBOUR = ("sh", "-c", "while :; do :; done")


def beside_others() -> Subject:
    """A step with two neighbours, who are gone before somebody else takes a turn."""
    alone = ours()

    def run() -> None:
        neighbours = [subprocess.Popen(NEIGHBOUR) for _ in range(2)]
        try:
            alone.run()
        finally:
            for neighbour in neighbours:
                neighbour.kill()
                neighbour.wait()

    return Subject(run, alone.work, alone.flops)


def subjects() -> Mapping[str, Callable[[], Subject]]:
    """As lockdec waits, and as long as without a word to OpenMP."""
    return {"lockdec": beside_others, LONG: beside_others}
