"""Time several ways to do the same work in turns, so that a drift of the machine affects all equally.

Every subject lives in a process of its own (`benchmarks.worker`) that waits while the others take their turns; a square
matrix product takes turns with them, and its rate is the peak that others are a share of. What counts is the ratio of
two rates in the same round: its median over the rounds, and its quartiles.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Protocol, cast

ROOT = Path(__file__).parent.parent
OURS, PEAK = "lockdec", "matmul"
# These run in a plain process of torch; every other subject runs in a process set up by lockdec.
PEERS = ("transformers", "x-transformers", "torch", "hydra", "peft")
BEFORE = "before"  # lockdec at an earlier commit
TURN = 0.4  # seconds: a turn takes at least this long, so that clock resolution and wake-up do not matter


@dataclass(frozen=True)
class Subject:
    """One way to do the work.

    Attributes:
        run: does one step.
        work: how much of the suite's unit a step does.
        flops: floating-point operations of a step (a multiplication and an addition are two), where known.
    """

    run: Callable[[], object]
    work: float
    flops: float | None = None


class Suite(Protocol):
    """A module of this package: one kind of work, and the subjects that do it.

    Attributes:
        TITLE: what is measured, with shapes.
        UNIT: of the work, in the plural.
        GOALS: by subject, the speed-up that lockdec should reach; by "matmul", the share of the peak.
        MEMORY_GOALS: by subject, how many times as much memory lockdec may take; optional.
        ENVIRONMENT: by subject, additions to the environment of its process; optional.
    """

    TITLE: str
    UNIT: str
    GOALS: Mapping[str, float]

    def subjects(self) -> Mapping[str, Callable[[], Subject]]:
        """The function that builds each subject, by name; lockdec's is "lockdec"."""


def load(name: str) -> Suite:
    """The suite of this name; a dotted name is a module outside the package."""
    return cast(Suite, importlib.import_module(name if "." in name else f"benchmarks.{name}"))


@dataclass
class Worker:
    """A subject in its process.

    Attributes:
        steps: per turn.
        rates: steps per second, one for each turn.
    """

    process: subprocess.Popen[str]
    work: float
    flops: float | None
    steps: int = 1
    rates: list[float] = field(default_factory=list)
    peak_memory_mb: float | None = None

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to one line of JSON; SystemExit if the process has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args!r} ended in the middle of the measurement: see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def wait(self) -> None:
        """Wait until the subject is built and warmed up."""
        ready = self.ask(steps=0)
        self.work, self.flops = ready["work"], ready["flops"]

    def calibrate(self) -> None:
        """Make turns long enough."""
        while (seconds := float(self.ask(steps=self.steps)["seconds"])) < TURN:
            self.steps = max(self.steps + 1, int(self.steps * min(8.0, 1.1 * TURN / seconds)))

    def turn(self) -> None:
        """Do the steps of a turn and note their rate."""
        self.rates.append(self.steps / float(self.ask(steps=self.steps)["seconds"]))


@contextmanager
def worker(suite: str, subject: str, threads: int, tree: Path = ROOT) -> Iterator[Worker]:
    """The process of a subject, which begins to build it and to warm it up."""
    from lockdec.runtime.process import (
        waits,  # here, since an earlier lockdec may not have it
    )

    command = [sys.executable, "-m", "benchmarks.worker", suite, subject, str(threads)]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(threads)}
    environment |= getattr(load(suite), "ENVIRONMENT", {}).get(subject, {})
    if tree == ROOT and not subject.startswith(PEERS):
        environment |= waits(environment)
    with subprocess.Popen(
        command, cwd=tree, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield Worker(process, 0.0, None)
        finally:
            process.kill()


def measure(name: str, threads: int, rounds: int, against: str | None = None) -> dict[str, Any]:
    """Measure a suite.

    Args:
        threads: of each subject.
        rounds: turns of each subject; at least 2.
        against: a commit whose lockdec takes part as "before".

    Returns:
        The section of the results: goals, and for each subject its rates, memory and ratios (`Worker`, `_found`).
    """
    suite = load(name)
    with ExitStack() as stack:
        workers = {
            subject: stack.enter_context(worker(name, subject, threads)) for subject in [*suite.subjects(), PEAK]
        }
        if against:
            tree = stack.enter_context(checkout(against))
            workers[BEFORE] = stack.enter_context(worker(name, OURS, threads, tree))
        for one in workers.values():  # they are built side by side
            one.wait()
        for one in workers.values():
            one.calibrate()
        for number in range(rounds):
            # In alternating order, so that no subject always comes first.
            for turning in list(workers.values())[:: -1 if number % 2 else 1]:
                turning.turn()
        for measured in workers.values():
            measured.peak_memory_mb = measured.ask(memory=True)["peak_memory_mb"]
    peak = workers.pop(PEAK)
    assert peak.flops is not None
    return {
        "title": suite.TITLE,
        "unit": suite.UNIT,
        "threads": threads,
        "rounds": rounds,
        "against": against,
        "matmul_gflops": median(peak.rates) * peak.flops / 1e9,
        "goals": dict(suite.GOALS),
        "memory_goals": dict(getattr(suite, "MEMORY_GOALS", {})),
        "subjects": {subject: _found(one, workers.get(OURS), peak) for subject, one in workers.items()},
    }


def _found(one: Worker, ours: Worker | None, peak: Worker) -> dict[str, Any]:
    found: dict[str, Any] = {
        "per_second": spread([rate * one.work for rate in one.rates]),
        "peak_memory_mb": one.peak_memory_mb,
    }
    if ours is not None and one is not ours:
        found["ratio"] = spread(
            [mine * ours.work / (rate * one.work) for mine, rate in zip(ours.rates, one.rates, strict=True)]
        )
    if one.flops is not None and peak.flops is not None:
        shares = [rate * one.flops / (best * peak.flops) for rate, best in zip(one.rates, peak.rates, strict=True)]
        found["share_of_peak"] = spread(shares)
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, _, high = quantiles(values, n=4, method="inclusive")
    return {"median": median(values), "low": low, "high": high}


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A folder with the lockdec of another commit beside the benchmarks of this one."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "--detach", "-q", str(tree), commit], check=True)
        try:
            shutil.rmtree(tree / "benchmarks", ignore_errors=True)
            shutil.copytree(ROOT / "benchmarks", tree / "benchmarks")
            yield tree
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(tree)], check=True)
