"""What a store contains, which runs refer to it, and what can be removed."""

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
from lockdec.store import DAMAGED, METADATA, UNFINISHED, damage, unused_name
from lockdec.store.locking import is_held, locked
from lockdec.store.reading import RESULT, read_object

DAY = 86_400.0
_REMOVED = ".removed-"
_NAME = re.compile(rf"([0-9a-f]{{64}})(|{re.escape(UNFINISHED)}|{re.escape(DAMAGED)}\d+|{re.escape(_REMOVED)}\d+)")
_STATES = {"": "whole", UNFINISHED: "unfinished", DAMAGED: "damaged", _REMOVED: "removed"}


@dataclass(frozen=True)
class Entry:
    """One folder of a store.

    Attributes:
        folder: its path.
        stage, key: the address of the artifact, even if it is unfinished or damaged.
        state: "whole", "unfinished", "damaged" (set aside), "removed" (its removal was interrupted), or "shared" (in
            another store, and never removed from there).
        bytes: the total size of its files.
        age: seconds since it was made or last used.
        runs: the folders of the runs whose result.json refers to it, or to an artifact made from it.
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


def entries(outputs: Path, further: Sequence[Path] = (), stores: Sequence[Path] = ()) -> list[Entry]:
    """All folders of the store below `outputs`, sorted by stage and key; then the artifacts of other stores.

    Args:
        further: folders with more runs that use this store.
        stores: other stores that the runs use, as in `paths.stores`.

    Raises:
        StoreError: there is no store, or a result.json or a folder cannot be read, so it is not known what runs refer
            to.
    """
    root = outputs / "stages"
    if not root.is_dir():
        raise StoreError(f"{root}: no store here (--outputs names the folder that contains stages/)")
    for place in further:
        if not place.is_dir():
            raise StoreError(f"{place}: no folder with runs (--runs)")
    found = [
        (path, match)
        for place in (root, *stores)
        for path in sorted(place.glob("*/*"))
        if (match := _NAME.fullmatch(path.name)) and (place == root or not match[2])
    ]
    runs = _referring(
        [outputs / "runs", outputs / "sweeps", *further], {path.name: path for path, _ in reversed(found)}
    )
    listed = []
    for path, match in found:
        state = _STATES[match[2].rstrip("0123456789")] if path.parent.parent == root else "shared"
        users = tuple(sorted(runs.get(match[1], ()))) if state in ("whole", "shared") else ()
        age = max(0.0, time.time() - path.stat().st_mtime)  # the clock may have been set back
        listed.append(Entry(path, path.parent.name, match[1], state, _size(path), age, users))
    return listed


def problems(outputs: Path, listed: Iterable[Entry]) -> Iterator[tuple[Entry, str]]:
    """The artifacts that do not match their hashes, each with its first wrong file."""
    for entry in listed:
        if entry.state in ("whole", "shared"):
            try:
                problem = damage(entry.folder, entry.stage, entry.key)
            except StoreError as error:
                problem = str(error)
            if problem:
                yield entry, problem


def leftovers(outputs: Path, listed: Iterable[Entry], older_than: float) -> list[Entry]:
    """Damaged and half removed artifacts, and unfinished ones that no process has worked on for so many seconds."""
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
    """Artifacts that can be removed: unused for so many seconds, and no run's result.json refers to them.

    Args:
        keep: patterns of `stage/key` that are never removed.
        referred: include those that runs refer to.
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
    """Remove a folder: under its lock, so that nobody is making it, and renamed first, so that it is never half there.

    Raises:
        StoreError: it cannot be removed.
    """
    gone = unused_name(entry.folder, f"{entry.key}{_REMOVED}")
    try:
        with locked(outputs / "stages" / ".locks" / f"{entry.stage}-{entry.key}"):
            entry.folder.rename(gone)
        shutil.rmtree(gone)
    except OSError as error:
        raise StoreError(f"{entry.folder}: cannot be removed ({error.strerror})") from error


def _referring(places: Iterable[Path], folders: Mapping[str, Path]) -> dict[str, set[str]]:
    """The runs that refer to each artifact, directly or through an artifact made from it, by its key."""
    users: dict[str, set[str]] = {}
    for place in places:
        for path in _results(place):
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


def _results(place: Path) -> Iterator[Path]:
    """Every result.json at or below a folder, also where runs have been moved and links lead to them.

    There are none in hidden folders, or inside runs.

    Raises:
        StoreError: a folder cannot be read, or a link leads nowhere, so it is not known what runs there refer to.
    """
    _require_there(place)
    walked = set()
    for folder, folders, files in os.walk(place, onerror=_raise, followlinks=True):
        path = Path(folder)
        if path.resolve() in walked:  # a link has led back here
            folders.clear()
            continue
        walked.add(path.resolve())
        if RESULT in files:
            yield path / RESULT
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:  # among which os.walk counts links that lead nowhere
            if not name.startswith("."):
                _require_there(path / name)


def _require_there(path: Path) -> None:
    if path.is_symlink() and not os.path.exists(path):
        raise StoreError(f"{path}: a link that leads nowhere; runs there may need artifacts. Remove it, or mount what "
                         "it leads to")  # fmt: skip


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # there need not be any runs
        raise StoreError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _parents(folder: Path | None) -> list[str]:
    try:
        parents = read_object(folder / METADATA).get("parents") if folder else None
    except StoreError:
        return []  # damaged, but its parents are among the stages of the run itself
    return [str(key) for key in parents.values()] if isinstance(parents, dict) else []


def _size(folder: Path) -> int:
    return sum(os.lstat(path).st_size for path in folder.rglob("*") if path.is_file())
