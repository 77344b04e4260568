"""Reads files that may come from strangers: as data of bounded size, without running anything in them.

If anything is wrong with a file, its reader raises a `StoreError` that names it. Only regular files are read: no links,
pipes or devices. No reader unpickles, resolves `${...}` or unpacks archives.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import yaml

from lockdec.errors import StoreError

Kind = TypeVar("Kind")

RESULT, CONFIG = "result.json", "config.yaml"  # of a run
CAPTIONS, ATTENTION = "captions.jsonl", "attention.jsonl"  # of a run, from its last stage
SUPPORT = "support.jsonl"  # likewise: the ids and captions of the support set, in its order
RUNNING = ".running"  # in the folder of a cell of a sweep: the lock that is held while it runs
MULTIRUN = "multirun.yaml"  # in the folder of a sweep: what Hydra was told
MADE_BEFORE = Path(
    "shared", "made.json"
)  # in the folder of a sweep: the stages that were made before its cells started
# Far above what runs write. As Python objects, JSON takes up to 28 times its bytes; YAML takes a second for 130 kB.
MOST_BYTES = 16_000_000  # in a JSON file
MOST_CONFIG_BYTES = 256_000  # in a YAML file
MOST_IDS_BYTES = 128_000_000  # in a file with the ids of inputs, which may be millions
MOST_NESTED = 100  # levels of a value
LONGEST_NAME = 128  # bytes: W&B takes 128 characters, file systems 255 bytes
MOST_LEVELS = 16  # of folders below one in which runs are looked for
_LONGEST_NUMBER = 100  # characters in YAML, whose numbers can take quadratic time
SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML has libyaml


def is_name(text: object) -> bool:
    """Whether a text can name a run, a sweep, a cell or a stage: one component of a path, visible and not hidden."""
    return (
        isinstance(text, str)
        and text.isprintable()
        and text == text.strip()
        and not text.startswith(".")
        and not set("/\\") & set(text)
        and 0 < len(text.encode()) <= LONGEST_NAME
    )


def run_folders(root: Path) -> Iterator[Path]:
    """The folders of runs and cells at or below one, finished or not.

    They have a result.json, or the lock of a cell, or are numbered, as cells are by default, and have some file.
    Nothing is looked for inside them, in hidden folders, or behind links.
    """
    for place, folders, files in os.walk(root):
        path = Path(place)
        numbered = path.name.isdecimal() and path != root and bool(files)
        if RESULT in files or RUNNING in files or numbered:
            folders.clear()
            yield path
        elif len(path.relative_to(root).parts) >= MOST_LEVELS:
            folders.clear()
        else:
            folders[:] = [name for name in folders if not name.startswith(".")]


def within(folder: Path, name: str | Path) -> Path:
    """The path of a file in a folder, whether or not it exists; the folder itself may be behind a link.

    Raises:
        StoreError: the name points outside the folder, or there is a symbolic link on the way.
    """
    path = folder
    for part in str(name).split("/"):
        if part in ("", ".", "..") or "\0" in part:
            raise StoreError(f"{folder}: {str(name)!r} does not name a file in it")
        path = path / part
        if os.path.islink(path):
            raise StoreError(f"{path}: a symbolic link, which is not followed")
    return path


def opened(path: Path, links: bool = True) -> BinaryIO:
    """A regular file, open to be read.

    Args:
        links: whether a symbolic link is followed.

    Raises:
        OSError: it cannot be opened, or is a pipe or a device, which may have no end.
    """
    # Without blocking, since opening a pipe would wait for its writer.
    kept = 0 if links else os.O_NOFOLLOW
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | kept | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        error = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(error, os.strerror(error) if stat.S_ISDIR(mode) else "not a regular file", str(path))
    return open(descriptor, "rb")


def read_bytes(path: Path, most: int, links: bool = False) -> bytes:
    """The content of a regular file.

    Args:
        most: bytes.
        links: whether a symbolic link is followed, as where users have named a file or its folder.

    Raises:
        StoreError: it cannot be read, is not a regular file (but a link, a pipe or a device), or is larger.
    """
    try:
        with opened(path, links) as file:
            content = file.read(most + 1)
    except OSError as error:
        behind_link = error.errno == errno.ELOOP and not links
        reason = "a symbolic link, which is not followed" if behind_link else error.strerror
        raise StoreError(f"{path}: cannot be read ({reason})") from error
    except ValueError as error:  # a name with a null byte
        raise StoreError(f"{path}: cannot be read ({error})") from error
    if len(content) > most:
        raise StoreError(f"{path}: larger than {most:,} bytes, the most that is read here")
    return content


def read_text(path: Path, most: int) -> str:
    """As `read_bytes`, as a text in UTF-8.

    Raises:
        StoreError: as `read_bytes`, or it is not UTF-8.
    """
    try:
        return read_bytes(path, most).decode()
    except ValueError as error:
        raise StoreError(f"{path}: cannot be read ({error})") from error


def from_json(text: str) -> Any:
    """The value that a JSON text stands for, if lockdec could have written it.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or has a number of more than 64 bits or a text that is not
            Unicode.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if problem := _problem(value):
        raise ValueError(problem)
    return value


def read_json(path: Path, most: int = MOST_BYTES, links: bool = False) -> Any:
    """The value in a JSON file.

    Args:
        most, links: as `read_bytes`.

    Raises:
        StoreError: it cannot be read, is too large, or is not JSON that lockdec could have written.
    """
    try:
        return from_json(read_bytes(path, most, links).decode("utf-8-sig"))
    except ValueError as error:
        raise StoreError(f"{path}: not JSON ({error})") from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file with one of them in each line.

    Raises:
        StoreError: as `read_json`, or a line is not an object; the error names it.
    """
    rows = []
    for number, line in enumerate(read_bytes(path, MOST_BYTES).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = from_json(line.decode())
        except ValueError as error:
            raise StoreError(f"{path}: line {number} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise StoreError(f"{path}: line {number} is not a JSON object")
        rows.append(row)
    return rows


def read_object(path: Path) -> dict[str, Any]:
    """As `read_json`, but the value must be an object.

    Raises:
        StoreError: as `read_json`, or the value is not an object.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise StoreError(f"{path}: not a JSON object")
    return value


def read_config(path: Path) -> dict[str, Any]:
    """The config that a run wrote (`config.yaml`), as plain containers.

    A run resolves its config before writing it, so a config with `${...}` was not written by a run. Resolving it would
    reveal environment variables to whoever wrote it. Tags could name Python objects, and aliases can make a small file
    expand without limit.

    Raises:
        StoreError: it cannot be read or is not such a config.
    """
    text = read_text(path, MOST_CONFIG_BYTES)
    try:
        depth = 0
        for event in yaml.parse(text, SAFE_LOADER):
            if isinstance(event, yaml.AliasEvent):
                raise StoreError(f"{path}: not the config of a run (it has an alias, *{event.anchor})")
            if tag := getattr(event, "tag", None):
                raise StoreError(f"{path}: not the config of a run (it has a tag, {tag})")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_NESTED:
                raise StoreError(f"{path}: not the config of a run (nested too deeply)")
            if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
                raise StoreError(f"{path}: not the config of a run ({event.value!r} is not resolved)")
            if isinstance(event, yaml.ScalarEvent) and _is_long_number(event):
                raise StoreError(f"{path}: not the config of a run (a number of {len(event.value)} characters)")
        config = yaml.load(text, SAFE_LOADER)
        problem = _problem(config)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise StoreError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if problem or not isinstance(config, dict):
        raise StoreError(f"{path}: not the config of a run ({problem or 'it has no keys'})")
    return config


def _is_long_number(event: yaml.ScalarEvent) -> bool:
    word = event.value.lstrip("+-.")
    return event.implicit[0] and len(word) > _LONGEST_NUMBER and word[:1].isdecimal() and " " not in word


def _problem(value: Any) -> str:
    """What in a value of plain containers lockdec would not have written; empty if there is nothing."""
    left = [(value, 1)]
    while left:
        node, depth = left.pop()
        if isinstance(node, dict | list) and depth > MOST_NESTED:
            return "nested too deeply"
        if isinstance(node, dict):
            for key in node:
                if not isinstance(key, str):
                    return f"the key {key!r} is not a text"
                left.append((key, depth))
            left += [(inner, depth + 1) for inner in node.values()]
        elif isinstance(node, list):
            left += [(inner, depth + 1) for inner in node]
        elif isinstance(node, str):
            if not node.isascii() and not _is_unicode(node):
                return f"the text {node[:40]!r} has a lone surrogate"
        elif isinstance(node, int):
            if not -(2**63) <= node < 2**64:
                return "a number of more than 64 bits"
        elif isinstance(node, float):
            if not math.isfinite(node):
                return f"{node} is not a number"
        elif node is not None:
            return f"{type(node).__name__} {node} is neither a text nor a number"
    return ""


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def read_dataclass(path: Path, kind: type[Kind]) -> Kind:
    """The dataclass whose fields are stored as a JSON object.

    Raises:
        StoreError: as `read_object`, or a field is missing, unknown or has the wrong type.
    """
    return as_dataclass(path, kind, read_object(path))


def as_dataclass(path: Path, kind: type[Kind], value: object) -> Kind:
    """As `read_dataclass`, from a value that `read_json` has read from this file."""
    from pydantic import TypeAdapter, ValidationError

    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(value, dict) or (unknown := sorted(set(value) - names)):
        reason = f"unknown key {unknown[0]}" if isinstance(value, dict) else f"{value} is no object"
        raise StoreError(f"{path}: not a {kind.__name__} ({reason})")
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise StoreError(f"{path}: not a {kind.__name__} ({place}: {problem['msg'].lower()})") from error
