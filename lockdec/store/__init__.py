"""Content-addressed artifacts: made once, published atomically, verified on every use.

An artifact is a folder `<root>/<stage>/<key>/` with an `artifact.json` beside the stage's own files. The key is the
sha256 of everything that can change what the stage produces, so equal keys mean equal content and a folder that exists
is complete: it is written under another name, flushed to disk and then renamed. One process makes an artifact while
others wait for it. Nothing is unpickled: metadata is JSON, and weights are safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lockdec.errors import LockdecError, StoreError, said
from lockdec.store.locking import locked, require_locks
from lockdec.store.reading import read_json, read_object
from lockdec.store.writing import clear_partial, disk_full, flush, is_disk_full, write_json
from lockdec.version import __version__

SCHEMA_VERSION = 1  # tests/faults/artifacts has an artifact of every released version
METADATA = "artifact.json"
CURVE = "metrics.csv"  # the learning curve of a stage
CHECKPOINT, GOOD_CHECKPOINT = "last.ckpt", "good.ckpt"  # exist only in unfinished folders
UNFINISHED, DAMAGED = ".unfinished", ".damaged-"
_OF_SYSTEMS = ("Thumbs.db", "desktop.ini", "Icon\r")  # which leave these in folders, beside hidden files
_SETTLED = 2_000_000_000  # nanoseconds; a second change soon after the first may leave the times of a file as they are
_sha256: dict[tuple[int, ...], str] = {}
_RECORD = {"schema": int, "stage": str, "key": str, "files": dict, "metrics": dict, "config": dict, "parents": dict}


def canonical_json(value: Any) -> str:
    """The canonical JSON of a value, the same in every process: sorted keys, no white space, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def artifact_key(**ingredients: Any) -> str:
    """The sha256 (64 hex digits) of everything that can change what a stage produces."""
    return hashlib.sha256(canonical_json(ingredients).encode()).hexdigest()


def file_identity(path: Path) -> tuple[int, ...] | None:
    """Numbers that change whenever the file does; None while it is so new that another change could leave them."""
    return _identity(path.stat())


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex; this process remembers it until the file is written to or replaced."""
    with path.open("rb") as file:
        identity = _identity(os.fstat(file.fileno()))
        known = None if identity is None else _sha256.get(identity)
        found = known or hashlib.file_digest(file, "sha256").hexdigest()
    if identity is not None:
        _sha256[identity] = found
    return found


def _identity(found: os.stat_result) -> tuple[int, ...] | None:
    if time.time_ns() - found.st_ctime_ns < _SETTLED:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@dataclass(frozen=True)
class Artifact:
    """One published, verified result of a stage.

    Attributes:
        folder: contains its files; read-only by convention.
        stage, key: its address in the store.
        metrics: what the stage measured, as JSON values.
        config: the config subtree the stage saw.
        parents: the keys of the artifacts it was made from, by stage.
        seconds: how long making it took.
        reused: whether it existed before this run.
    """

    folder: Path
    stage: str
    key: str
    metrics: Mapping[str, Any]
    config: Mapping[str, Any]
    parents: Mapping[str, str]
    seconds: float
    reused: bool

    def path(self, name: str) -> Path:
        """The path of one of its files."""
        return self.folder / name


class Store:
    """The artifacts below one folder, over those of stores that others have made.

    Args:
        root: the folder (`outputs/stages`); created if missing.
        layers: folders like it, whose artifacts are used from where they are. They are looked up first, verified like
            all others, and never written to.

    Raises:
        StoreError: `root` cannot be created or written to, or a layer cannot be read.
    """

    def __init__(self, root: Path, layers: Sequence[Path] = ()) -> None:
        self.root, self.layers = root, tuple(layers)
        for layer in self.layers:
            try:
                os.listdir(layer)
            except OSError as error:
                raise StoreError(f"paths.stores: {layer} cannot be read ({error.strerror}); name a folder that holds "
                                 "<stage>/<key>/") from error  # fmt: skip
        try:
            (root / ".locks").mkdir(parents=True, exist_ok=True)
            require_locks(root / ".locks")
        except OSError as error:
            raise StoreError(
                f"paths.outputs={root.parent}: cannot write there ({error.strerror}); name a folder you may write to"
            ) from error

    def folder(self, stage: str, key: str) -> Path:
        """The folder of an artifact once it is published."""
        return self.root / stage / key

    def lock_path(self, stage: str, key: str) -> Path:
        """The file that the process making the artifact has locked."""
        return self.root / ".locks" / f"{stage}-{key}"

    def find(self, stage: str, key: str) -> Artifact | None:
        """The verified artifact; None if there is none or it is damaged.

        Raises:
            StoreError: it has a schema that this version of lockdec does not read.
        """
        for layer in self.layers:
            folder = layer / stage / key
            try:
                if not folder.is_dir():
                    continue
                if not (wrong := damage(folder, stage, key)):
                    return open_artifact(folder)
                problem = f"{wrong} is damaged"
            except (StoreError, PermissionError) as error:  # of another schema, or not readable by this user
                problem = said(error)
            warnings.warn(f"{folder}: not used ({problem})", stacklevel=3)
        folder = self.folder(stage, key)
        if not folder.is_dir() or damage(folder, stage, key):
            return None
        with suppress(OSError):  # `lockdec store` counts its age from its last use; it may be somebody else's
            os.utime(folder)
        return open_artifact(folder)

    def open(self, stage: str, key: str) -> Artifact:
        """A published artifact that has just been verified."""
        return open_artifact(located([*self.layers, self.root], stage, key))

    def get_or_make(
        self,
        stage: str,
        key: str,
        make: Callable[[Path], Mapping[str, Any]],
        config: Mapping[str, Any],
        parents: Mapping[str, str],
        waiting: Callable[[str], None] = lambda holder: None,
    ) -> Artifact:
        """Reuse the artifact, or make and publish it. A damaged one is set aside with a warning first.

        Args:
            make: writes the files into the folder it is given and returns the metrics. The folder may contain what a
                killed attempt left there (`last.ckpt`), which `make` is expected to continue.
            waiting: called once if another process is making this artifact, with what is known of it; see `locked`.

        Raises:
            StoreError: the disk is full, the store cannot be written to, or the artifact has a schema that this version
                of lockdec does not read.
        """
        if artifact := self.find(stage, key):
            return artifact
        with self._writable(), locked(self.lock_path(stage, key), waiting):
            if artifact := self.find(stage, key):
                return artifact
            folder = self.folder(stage, key)
            unfinished = folder.with_name(key + UNFINISHED)
            try:
                self._set_aside(folder)
                unfinished.mkdir(parents=True, exist_ok=True)
                clear_partial(unfinished)
                # If the process was killed just before renaming the folder, the artifact in it is complete.
                if damage(unfinished, stage, key):
                    _make(unfinished, stage, key, make, config, parents)
                for name in (CHECKPOINT, GOOD_CHECKPOINT):
                    (unfinished / name).unlink(missing_ok=True)
                flush(unfinished)
                unfinished.rename(folder)
                flush(folder.parent)
            except Exception as error:
                if is_disk_full(error) and not isinstance(error, LockdecError):
                    raise disk_full(_newest_file(unfinished)) from error
                if isinstance(error, PermissionError) and not error.filename:  # a library's, which names no file
                    raise PermissionError(error.errno, error.strerror, str(unfinished)) from error
                raise
            record = read_json(folder / METADATA)
            return Artifact(folder, stage, key, record["metrics"], config, dict(parents), record["seconds"], False)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        """Say of a file of this store that may not be written whose it is."""
        try:
            yield
        except PermissionError as error:
            path = Path(os.fsdecode(error.filename or self.root))
            if not path.is_relative_to(self.root):
                raise
            owned = next(place for place in (path, *path.parents) if place.exists())
            raise StoreError(
                f"{path}: cannot be written ({error.strerror}); {owned} belongs to user {_owner(owned)}. A store that "
                "several people write to has to be writable for their group: chmod -R g+rwX, chmod g+s on its folders, "
                "and umask 002"
            ) from error

    def _set_aside(self, folder: Path) -> None:
        if folder.is_dir():
            problem = damage(folder, folder.parent.name, folder.name)
            aside = unused_name(folder, f"{folder.name}{DAMAGED}")
            folder.rename(aside)
            warnings.warn(f"{folder / str(problem)} is damaged; set aside as {aside.name} and made again", stacklevel=3)


def open_artifact(folder: Path) -> Artifact:
    """A published artifact that has just been verified, by its folder `<stage>/<key>`."""
    record = read_json(folder / METADATA)
    names = ("metrics", "config", "parents", "seconds")
    parts = {name: record[name] for name in names}
    return Artifact(folder=folder, stage=folder.parent.name, key=folder.name, reused=True, **parts)


def located(stores: Sequence[Path], stage: str, key: str) -> Path:
    """The folder of an artifact in the first of several stores that has it, not verified; otherwise in the last."""
    folders = [store / stage / key for store in stores]
    return next((folder for folder in folders if os.path.isfile(folder / METADATA)), folders[-1])  # or not readable


def unused_name(beside: Path, start: str) -> Path:
    """A path beside another that does not exist: the start of its name, and a number that grows with time."""
    number = time.time_ns()
    while (path := beside.with_name(f"{start}{number}")).exists():  # a clock can stand still, or be set back
        number += 1
    return path


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except (KeyError, OSError):
        return str(path.stat().st_uid)


def _make(
    folder: Path,
    stage: str,
    key: str,
    make: Callable[[Path], Mapping[str, Any]],
    config: Mapping[str, Any],
    parents: Mapping[str, str],
) -> None:
    started = time.monotonic()
    (folder / METADATA).unlink(missing_ok=True)
    metrics = make(folder)
    record: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "stage": stage,
        "key": key,
        "config": config,
        "parents": dict(parents),
        "metrics": dict(metrics),
        "seconds": round(time.monotonic() - started, 3),
        "files": _inventory(folder),
        "versions": {"lockdec": __version__, "torch": version("torch"), "python": platform.python_version()},
    }
    _write_record(folder, record)


def copy_part(
    folder: Path, to: Path, names: Collection[str], told: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> None:
    """Copy some files of an artifact, with its metadata, as an artifact that contains only these.

    Args:
        folder: a published artifact that has files of these names.
        to: the folder of the copy, whose path ends in the same stage and key; it must not exist yet.
        told: makes of the metadata those of the copy.

    Raises:
        OSError: a file cannot be copied.
    """
    to.mkdir(parents=True)
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, to / name)
    record = read_object(folder / METADATA)
    _write_record(to, told(record | {"files": {name: record["files"][name] for name in names}}))


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the metadata with its own hash, which reveals later changes."""
    write_json(folder / METADATA, {**record, "sha256": _record_sha256(record)})


def _record_sha256(record: Mapping[str, Any]) -> str:
    content = {name: value for name, value in record.items() if name != "sha256"}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def damage(folder: Path, stage: str, key: str, names: Collection[str] | None = None) -> str | None:
    """The first file of an artifact that is missing or changed; None if there is no such file.

    Args:
        names: the files whose content is checked; None checks all of them.

    Raises:
        StoreError: the artifact has a schema that this version of lockdec does not read, a file may not be read by this
            user, or there is one that its stage has not written: a reader could take it for the stage's own.
    """
    try:
        record = read_json(folder / METADATA)
    except StoreError as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        return METADATA
    schema = record.get("schema") if isinstance(record, dict) else None
    if isinstance(schema, int) and schema != SCHEMA_VERSION:
        raise StoreError(
            f"{folder / METADATA}: schema {schema}, and this lockdec ({__version__}) reads {SCHEMA_VERSION}; "
            "use the lockdec that wrote it, or another paths.outputs"
        )
    if not isinstance(record, dict) or any(not isinstance(record.get(name), kind) for name, kind in _RECORD.items()):
        return METADATA
    if (record["stage"], record["key"]) != (stage, key) or not isinstance(record.get("seconds"), int | float):
        return METADATA
    if record.get("sha256", _record_sha256(record)) != _record_sha256(record):  # the oldest artifacts have none
        return METADATA
    for name in record["files"] if names is None else names:
        expected = record["files"].get(name)
        path = folder / name
        try:
            if not _is_inside(folder, path) or not isinstance(expected, dict):
                return str(name) or METADATA  # a file without a name is the fault of the record
            if path.stat().st_size != expected.get("bytes") or file_sha256(path) != expected.get("sha256"):
                return str(name)
        except PermissionError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        own = "/".join(parts) in record["files"] or path.name in (METADATA, CHECKPOINT, GOOD_CHECKPOINT)
        hidden = any(part.startswith((".", "@")) for part in parts) or path.name in _OF_SYSTEMS
        if not own and not hidden and (path.is_symlink() or not path.is_dir()):
            raise StoreError(f"{path}: not part of the artifact; its stage has not written it. Remove it")
    return None


def _is_inside(folder: Path, path: Path) -> bool:
    """Whether the file is really in the folder: neither it nor any folder on its path is a symbolic link."""
    try:
        path.lstat()
        inside = path.resolve().relative_to(folder.resolve())
        return path.is_file() and path == folder / inside
    except PermissionError:
        raise
    except (OSError, ValueError):
        return False


def _inventory(folder: Path) -> dict[str, dict[str, Any]]:
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (METADATA, CHECKPOINT, GOOD_CHECKPOINT):
            flush(path)
            name = path.relative_to(folder).as_posix()
            files[name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    return files


def _newest_file(folder: Path) -> Path:
    """The file that was written last."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_mtime_ns, default=folder / METADATA)
