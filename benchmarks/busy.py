"""What it costs that torch's threads spin while they wait, when other processes want the same cores."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping

from benchmarks.pretraining import ours
from benchmarks.side_by_side import Subject

TITLE = "A pretraining step beside two processes that keep both cores busy; sizes as in pretraining"
UNIT = "tokens"
GOALS: Mapping[str, float] = {}
LONG = "OpenMP's default spin count"
ENVIRONMENT = {LONG: {"GOMP_SPINCOUNT": "300000"}}  # GNU OpenMP's default
NEIGHBOUR = ("sh", "-c", "while :; do :; done")


def beside_others() -> Subject:
    """A step beside two busy processes, which end before the next subject takes its turn."""
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
    """lockdec's spin count, and OpenMP's default."""
    return {"lockdec": beside_others, LONG: beside_others}
