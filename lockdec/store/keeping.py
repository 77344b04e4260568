"""What lies in a store, which runs refer to it, and what may go."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from lockdec.errors import StoreError
from lockdec.store import DAMAGED, METADATA, UNFINISHED, damage
from lockdec.store.locking import is_held, locked
from lockdec.store.reading import read_object

DAY = 86_400.0
_REMOVED = ".removed-"
_NAME = re.compile(rf"([0-9a-f]{{64}})(|{re.escape(UNFINISHED)}|{re.escape(DAMAGED)}\d+|{re.escape(_REMOVED)}\d+)")
_STATES = {"": "whole", UNFINISHED: "unfinished", DAMAGED: "damaged", _REMOVED: "removed"}


@dataclass(frozen=True)
class Entry:
    """One folder of a store.

    Attributes:
        folder: where it lies.
        stage, key: which artifact it is, was or is going to be.
        state: "whole", "unfinished", "damaged" (set aside) or "removed" (by a removal that was cut short).
        bytes: the size of its files.
        age: seconds since it was made or last used.
        runs: the folders of the runs whose result.json refers to it, or to what was made of it.
    """

    folder: Path
    stage: str
    key: str
    state: str
    bytes: int
    age: float
    runs: tuple[str, ...]

    @property
    def name(self) -> str:
        """`stage/key`."""
        return f"{self.stage}/{self.key}"


def entries(outputs: Path, further: Sequence[Path] = ()) -> list[Entry]:
    """All folders of the store below `outputs`, in the order of stage and key.

    Args:
        further: folders of runs elsewhere that use this store.

    Raises:
        StoreError: there is no store, or a result.json cannot be read, so that nobody knows what it refers to.
    """
    root = outputs / "stages"
    if not root.is_dir():
        raise StoreError(f"{root}: no store here (--outputs names the folder that holds stages/)")
    found = [(path, match) for path in sorted(root.glob("*/*")) if (match := _NAME.fullmatch(path.name))]
    runs = _referring([outputs / "runs", outputs / "sweeps", *further], {path.name: path for path, _ in found})
    listed = []
    for path, match in found:
        marker = match[2].rstrip("0123456789")
        state = _STATES[marker]
        users = tuple(sorted(runs.get(match[1], ()))) if state == "whole" else ()
        age = time.time() - path.stat().st_mtime
        listed.append(Entry(path, path.parent.name, match[1], state, _size(path), age, users))
    return listed


def problems(outputs: Path, listed: Iterable[Entry]) -> Iterator[tuple[Entry, str]]:
    """The whole artifacts that are not what their hashes say, each with the first file that is wrong."""
    for entry in listed:
        if entry.state == "whole":
            try:
                problem = damage(entry.folder, entry.stage, entry.key)
            except StoreError as error:
                problem = str(error)
            if problem:
                yield entry, problem


def leftovers(outputs: Path, listed: Iterable[Entry], older_than: float) -> list[Entry]:
    """What was set aside or half removed, and attempts older than so many seconds that no process works on."""
    locks = outputs / "stages" / ".locks"
    return [
        entry
        for entry in listed
        if entry.state in ("damaged", "removed")
        or (
            entry.state == "unfinished"
            and entry.age >= older_than
            and not is_held(locks / f"{entry.stage}-{entry.key}")
        )
    ]


def unreferred(listed: Iterable[Entry], keep: Sequence[str], older_than: float, referred: bool) -> list[Entry]:
    """Whole artifacts that may go: unused for so many seconds, and no run's result.json refers to them.

    Args:
        keep: patterns of `stage/key` that stay in any case.
        referred: take those that runs refer to, too.
    """
    return [
        entry
        for entry in listed
        if entry.state == "whole"
        and entry.age >= older_than
        and (referred or not entry.runs)
        and not any(fnmatchcase(entry.name, pattern) for pattern in keep)
    ]


def remove(outputs: Path, entry: Entry) -> None:
    """Remove a folder: renamed first, so that no reader ever sees half of it, and never while it is being made.

    Raises:
        StoreError: it cannot be removed.
    """
    gone = entry.folder.with_name(f"{entry.key}{_REMOVED}{time.time_ns()}")
    try:
        with locked(outputs / "stages" / ".locks" / f"{entry.stage}-{entry.key}"):
            entry.folder.rename(gone)
        shutil.rmtree(gone)
    except OSError as error:
        raise StoreError(f"{entry.folder}: cannot be removed ({error.strerror})") from error


def _referring(places: Iterable[Path], folders: Mapping[str, Path]) -> dict[str, set[str]]:
    """The runs by the key of each artifact that they refer to, directly or through what was made of it."""
    users: dict[str, set[str]] = {}
    for place in places:
        for path in place.rglob("result.json"):
            stages = read_object(path).get("stages")
            if not isinstance(stages, dict):
                raise StoreError(f"{path}: its stages are not an object")
            keys = [stage.get("key") for stage in stages.values() if isinstance(stage, dict)]
            while keys:
                key = str(keys.pop())
                if str(path.parent) not in users.setdefault(key, set()):
                    users[key].add(str(path.parent))
                    keys += _parents(folders.get(key))
    return users


def _parents(folder: Path | None) -> list[str]:
    try:
        parents = read_object(folder / METADATA).get("parents") if folder else None
    except StoreError:
        return []  # damaged: what it was made of is among the run's own stages
    return [str(key) for key in parents.values()] if isinstance(parents, dict) else []


def _size(folder: Path) -> int:
    return sum(os.lstat(path).st_size for path in folder.rglob("*") if path.is_file())
