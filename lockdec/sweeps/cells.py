"""How far a sweep is, read from its folder alone, so that it does not matter which processes run the cells.

A cell is a numbered folder. The process that runs it holds a lock in it, which the operating system releases when the
process ends: a cell whose process was killed is not running. Its outcome is in its result.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from lockdec.store.reading import RESULT

LOCK = ".running"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the lock of a cell while running it; waits while another process holds it."""
    from filelock import FileLock  # here, since --help needs this module for no lock

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        yield


def is_running(folder: Path) -> bool:
    """Whether a live process runs the cell."""
    from filelock import FileLock, Timeout

    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def read_cells(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The results of a sweep's cells by number; a cell whose result cannot be read counts as failed."""
    cells: dict[str, Mapping[str, Any]] = {}
    numbered = [path for path in folder.glob("*/") if path.name.isdecimal()]
    for path in sorted(numbered, key=lambda path: int(path.name)):
        try:
            cells[path.name] = json.loads((path / RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            cells[path.name] = {"status": "failed", "error": f"{path / RESULT}: {error}"}
    return cells


@dataclass(frozen=True)
class Standing:
    """How many cells are done, running and so on.

    Attributes:
        done: finished `ok`, before or now.
        failed, pruned: in this attempt; a cell that failed in an earlier one is waiting again.
        seconds_left: estimated from the finished cells; None while there is none.
    """

    total: int
    done: int
    running: int
    failed: int
    pruned: int
    seconds_left: float | None

    def line(self, name: str) -> str:
        """The line that users see."""
        parts = [f"{self.done} of {self.total} cells done", f"{self.running} running", f"{self.failed} failed"]
        if self.pruned:
            parts.append(f"{self.pruned} pruned")
        if self.done + self.failed + self.pruned < self.total:
            left = "time left unknown" if self.seconds_left is None else f"{duration(self.seconds_left)} left"
            parts.append(left)
        return f"{name}: {', '.join(parts)}"


@dataclass
class Sweep:
    """The cells of one sweep as they stand.

    Args:
        folder: of the sweep; its cells are `0`, `1`, ...
        total: the number of cells.
        since: when this attempt started, in seconds since the epoch.
        overrides: of each cell, where known; a result with other overrides belongs to an earlier sweep.
    """

    folder: Path
    total: int
    since: float
    overrides: Sequence[Sequence[str]] | None = None
    _results: dict[Path, tuple[int, Mapping[str, Any]]] = field(default_factory=dict)

    def standing(self) -> Standing:
        """Count the cells; reads only the results that have changed since the last count."""
        counts = dict.fromkeys(("ok", "running", "failed", "interrupted", "pruned", "waiting"), 0)
        done = []
        for number in range(self.total):
            state, result = self._state(number)
            counts[state] += 1
            if state == "ok":
                done.append(result)
        ended = counts["ok"] + counts["failed"] + counts["pruned"]
        seconds = own_seconds(done)
        left = None if seconds is None else seconds * (self.total - ended) / max(1, counts["running"])
        return Standing(self.total, counts["ok"], counts["running"], counts["failed"], counts["pruned"], left)

    def _state(self, number: int) -> tuple[str, Mapping[str, Any]]:
        folder = self.folder / str(number)
        result = self._read(folder / RESULT)
        if is_running(folder):
            return "running", result
        status = str(result.get("status", "waiting"))
        if self.overrides is not None and result.get("overrides") != list(self.overrides[number]):
            return "waiting", result
        if status == "failed" and self._results[folder / RESULT][0] < self.since * 1e9:
            return "waiting", result
        return status, result

    def _read(self, path: Path) -> Mapping[str, Any]:
        try:
            changed = path.stat().st_mtime_ns
            if path not in self._results or self._results[path][0] != changed:
                self._results[path] = changed, json.loads(path.read_text(encoding="utf-8"))
            return self._results[path][1]
        except (OSError, ValueError):
            return {}


def own_seconds(results: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean seconds of a cell without the stages that other cells reused; None without a cell."""
    shared = {entry["key"] for result in results for entry in result["stages"].values() if entry["reused"]}
    own = []
    for result in results:
        given = sum(
            entry["seconds"] for entry in result["stages"].values() if entry["key"] in shared and not entry["reused"]
        )
        own.append(result["cost"]["seconds"] - given)
    return fmean(own) if own else None


def duration(seconds: float) -> str:
    """Seconds in a unit that suits them: `40 s`, `14 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
