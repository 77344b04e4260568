"""Content-addressed artifacts: made once, published atomically, verified whenever they are used.

An artifact is a folder `<root>/<stage>/<key>/` with an `artifact.json` beside the stage's own files. The key is the
sha256 of everything that can change what the stage produces, so equal keys mean equal content and a folder that exists
is complete: it is written under another name, flushed to disk and renamed. One process makes an artifact while others
wait for it. Nothing here unpickles anything: metadata is JSON, weights are safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lockdec import __version__
from lockdec.errors import StoreError

SCHEMA_VERSION = 1
METADATA = "artifact.json"
CHECKPOINT = "last.ckpt"  # lives in an unfinished folder only
UNFINISHED = ".unfinished"


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no white space, no NaN; the same in any process."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def artifact_key(**ingredients: Any) -> str:
    """The sha256 (64 hex digits) of all that can change what a stage produces."""
    return hashlib.sha256(canonical_json(ingredients).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        _flush(temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"{path}: cannot be written ({error.strerror})") from error


@dataclass(frozen=True)
class Artifact:
    """One published, verified result of a stage.

    Attributes:
        folder: where its files lie; read-only by convention.
        stage, key: its address in the store.
        metrics: what the stage measured, as JSON values.
        config: the config subtree the stage saw.
        parents: the keys of the artifacts it was made from, by stage.
        seconds: how long making it took.
        reused: whether this run found it made.
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
    """The artifacts below one folder.

    Args:
        root: the folder (`outputs/stages`); made when missing.

    Raises:
        StoreError: `root` cannot be made or written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            (root / ".locks").mkdir(parents=True, exist_ok=True)
            probe = root / ".locks" / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StoreError(
                f"paths.outputs={root.parent}: cannot write there ({error.strerror}); name a folder you may write to"
            ) from error

    def folder(self, stage: str, key: str) -> Path:
        """Where an artifact lies once it is published."""
        return self.root / stage / key

    def find(self, stage: str, key: str) -> Artifact | None:
        """The verified artifact, or None when there is none. A damaged one is set aside with a warning first."""
        folder = self.folder(stage, key)
        if not folder.is_dir():
            return None
        if problem := damage(folder):
            aside = folder.with_name(f"{key}.damaged-{time.time_ns()}")
            folder.rename(aside)
            warnings.warn(f"{folder / problem} is damaged; set aside as {aside.name} and made again", stacklevel=2)
            return None
        record = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        names = ("metrics", "config", "parents", "seconds")
        return Artifact(folder=folder, stage=stage, key=key, reused=True, **{name: record[name] for name in names})

    def get_or_make(
        self,
        stage: str,
        key: str,
        make: Callable[[Path], Mapping[str, Any]],
        config: Mapping[str, Any],
        parents: Mapping[str, str],
        waiting: Callable[[], None] = lambda: None,
    ) -> Artifact:
        """Reuse the artifact, or make and publish it.

        Args:
            make: writes the files into the folder it is given and returns the metrics. The folder may hold what an
                earlier, killed attempt left there (`last.ckpt`): it is to be continued.
            waiting: called once when another process is making this artifact.
        """
        if artifact := self.find(stage, key):
            return artifact
        with self._lock(stage, key, waiting):
            if artifact := self.find(stage, key):
                return artifact
            started = time.monotonic()
            folder = self.folder(stage, key)
            unfinished = folder.with_name(key + UNFINISHED)
            unfinished.mkdir(parents=True, exist_ok=True)
            metrics = make(unfinished)
            (unfinished / CHECKPOINT).unlink(missing_ok=True)
            record: dict[str, Any] = {
                "schema": SCHEMA_VERSION,
                "stage": stage,
                "key": key,
                "config": config,
                "parents": dict(parents),
                "metrics": dict(metrics),
                "seconds": round(time.monotonic() - started, 3),
                "files": _inventory(unfinished),
                "versions": {"lockdec": __version__, "torch": version("torch"), "python": platform.python_version()},
            }
            write_json(unfinished / METADATA, record)
            _flush(unfinished)
            unfinished.rename(folder)
            _flush(folder.parent)
            return Artifact(folder, stage, key, record["metrics"], config, dict(parents), record["seconds"], False)

    @contextmanager
    def _lock(self, stage: str, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        from filelock import FileLock, Timeout  # here, since --help needs this module for no lock

        # The operating system drops the lock with the process that holds it, so a killed maker blocks nobody.
        lock = FileLock(self.root / ".locks" / f"{stage}-{key}")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def damage(folder: Path) -> str | None:
    """The first file of a published artifact that is missing or altered; None when all is well."""
    try:
        record = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        files = record["files"]
        known = record["schema"] == SCHEMA_VERSION and record["key"] == folder.name
        complete = {"metrics", "config", "parents", "seconds"} <= record.keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return METADATA
    if not (known and complete and isinstance(files, dict)):
        return METADATA
    for name, expected in files.items():
        path = folder / name
        if path.is_symlink() or not path.is_file() or path.stat().st_size != expected["bytes"]:
            return str(name)
        if file_sha256(path) != expected["sha256"]:
            return str(name)
    return None


def _inventory(folder: Path) -> dict[str, dict[str, Any]]:
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != METADATA:
            _flush(path)
            name = path.relative_to(folder).as_posix()
            files[name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    return files


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
