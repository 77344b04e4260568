"""A suite for the test of the harness: one subject does twice the work of the others in as long a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from benchmarks.side_by_side import Subject

TITLE = "Sleeping for 20 ms"
UNIT = "naps"
GOALS = {"napper": 1.5, "late": 3.0}
MEMORY_GOALS = {"napper": 1000.0}


def nap(work: float, megabytes: int = 1) -> Subject:
    kept = torch.ones(megabytes * 250_000)

    def run() -> None:
        print("talks on stdout while it holds", len(kept))
        time.sleep(0.02)

    return Subject(run, work, flops=1e6)


def subjects() -> Mapping[str, Callable[[], Subject]]:
    return {"lockdec": lambda: nap(2), "napper": lambda: nap(1), "late": lambda: nap(1, megabytes=200)}
