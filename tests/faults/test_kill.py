"""Killed at random moments of every stage, also inside publication: the end is the same to the bit.

`make torture` kills 40 times (LOCKDEC_KILLS), the test suite 6 times; LOCKDEC_TORTURE_SEED draws other moments.
"""

from __future__ import annotations

import os
import random
import signal
from itertools import cycle
from pathlib import Path

from tests.faults.causes import Fault
from tests.faults.conftest import STAGES, essence, leftovers
from tests.faults.warm import Command, Warm

KILLS = int(os.environ.get("LOCKDEC_KILLS", "6"))
SEED = int(os.environ.get("LOCKDEC_TORTURE_SEED", "0"))


def moments(command: Command) -> dict[str, tuple[int, float]]:
    """How many file operations each stage took, and how many seconds from the first to the last."""
    times: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for line in command.diary.read_text().splitlines():
        stage, when = line.split()
        times[stage].append(float(when))
    return {stage: (len(found), found[-1] - found[0]) for stage, found in times.items()}


def test_kills_at_random_moments_change_nothing(warm: Warm, undisturbed: Command, tmp_path: Path) -> None:
    rng, seen, outputs = random.Random(SEED), moments(undisturbed), tmp_path / "outputs"
    kinds, killed, made = cycle(("time", "event", "publication")), 0, dict[str, int]()
    for turn in range(KILLS):
        stage = STAGES[turn * len(STAGES) // KILLS]
        events, seconds = seen[stage]
        kind = next(kinds)
        if kind == "time":
            fault = Fault(stage=stage, seconds=rng.uniform(0, seconds))
        elif kind == "event":
            fault = Fault(stage=stage, event=rng.randrange(events))
        else:
            fault = Fault(stage=stage, after=".artifact.json.", event=rng.randrange(8))
        command = warm.start(outputs, fault=fault)
        status = command.wait()
        assert status in (-signal.SIGKILL, 0), command.printed
        killed += status == -signal.SIGKILL
        assert made.items() <= command.artifacts.items(), "an artifact was made twice"
        made = command.artifacts
    assert killed >= KILLS - 1  # the last moment may come after the end
    command = warm.run(outputs)
    assert made.items() <= command.artifacts.items()
    assert len(command.artifacts) == len(STAGES)
    assert essence(command) == essence(undisturbed)
    assert leftovers(outputs) == []
    print(f"{killed} kills survived")
