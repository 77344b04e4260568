"""How far a sweep is, read from its folder alone, so that it does not matter which processes run the cells.

A cell is a folder, named by its number unless the user says otherwise. The process that runs it holds a lock in it,
which the operating system releases when the process ends: a cell whose process was killed is not running. Its outcome
is in its result.json.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from lockdec.errors import StoreError
from lockdec.evaluation.result import HARMLESS
from lockdec.store.locking import is_held, locked
from lockdec.store.reading import RESULT, RUNNING, read_object
from lockdec.terminal import duration


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the lock of a cell while running it; waits while another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / RUNNING):
        yield


def is_running(folder: Path) -> bool:
    """Whether a live process runs the cell."""
    return is_held(folder / RUNNING)


def read_cells(folder: Path, names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The results of a sweep's cells by name; a cell without a result that can be read counts as failed."""
    cells: dict[str, Mapping[str, Any]] = {}
    for name in names:
        path = folder / name / RESULT
        try:
            cells[name] = read_object(path)
        except StoreError as error:
            why = f"{error}" if path.is_file() else f"it left no {RESULT}: its process was ended, or it never started"
            cells[name] = {"status": "failed", "error": why}
    return cells


def finished_by_others(
    folder: Path, names: Sequence[str], overrides: Sequence[Sequence[str]], finished: Collection[str]
) -> tuple[int, int]:
    """How many finished cells a sweep's folder holds that this command does not have.

    Args:
        names, overrides: of the cells of this sweep; overrides that change no result do not count.
        finished: the names of those that are known to be finished.

    Returns:
        How many there are, and how many of them are where a cell of this sweep will be.
    """
    own, places = {_decisive(cell) for cell in overrides}, {folder / name for name in names}
    known = {folder / name for name in finished}
    others = []
    for path in folder.glob(f"**/{RESULT}"):
        if path.parent not in known:
            with suppress(StoreError):
                result = read_object(path)
                if result.get("status") == "ok" and _decisive(result.get("overrides")) not in own:
                    others.append(path.parent)
    return len(others), sum(place in places for place in others)


def _decisive(overrides: Any) -> frozenset[str]:
    words = overrides if isinstance(overrides, Sequence) else ()
    return frozenset(word for word in map(str, words) if not HARMLESS(word.lstrip("+~").partition("=")[0]))


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
        folder: of the sweep.
        names: of the cells' folders in it.
        finished: the cells that are `ok` since before this attempt and will not be run again; a result of any other
            cell counts once it has changed. None where nobody knows: every result counts but those that failed.
    """

    folder: Path
    names: Sequence[str]
    finished: Collection[str] | None = None
    _results: dict[Path, tuple[int, Mapping[str, Any]]] = field(default_factory=dict)
    _before: dict[str, int] = field(default_factory=dict)  # when the results of earlier attempts were written

    def __post_init__(self) -> None:
        for name in self.names:
            with suppress(OSError):
                self._before[name] = (self.folder / name / RESULT).stat().st_mtime_ns

    @property
    def total(self) -> int:
        """How many cells there are."""
        return len(self.names)

    def standing(self) -> Standing:
        """Count the cells; reads only the results that have changed since the last count."""
        counts = dict.fromkeys(("ok", "running", "failed", "interrupted", "pruned", "waiting"), 0)
        done = []
        for name in self.names:
            state, result = self._state(name)
            counts[state] += 1
            if state == "ok":
                done.append(result)
        ended = counts["ok"] + counts["failed"] + counts["pruned"]
        seconds = own_seconds(done)
        left = None if seconds is None else seconds * (self.total - ended) / max(1, counts["running"])
        return Standing(self.total, counts["ok"], counts["running"], counts["failed"], counts["pruned"], left)

    def _state(self, name: str) -> tuple[str, Mapping[str, Any]]:
        folder = self.folder / name
        changed, result = self._read(folder / RESULT)
        if is_running(folder):
            return "running", result
        status = str(result.get("status", "waiting"))
        if changed == self._before.get(name):  # of an earlier attempt, or there is none
            counts = status != "failed" if self.finished is None else name in self.finished
            return status if counts else "waiting", result
        return status, result

    def _read(self, path: Path) -> tuple[int | None, Mapping[str, Any]]:
        try:
            changed = path.stat().st_mtime_ns
            if path not in self._results or self._results[path][0] != changed:
                self._results[path] = changed, read_object(path)
            return self._results[path]
        except (OSError, StoreError):
            return None, {}


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
