"""Reads files that may come from strangers: as data of bounded size, without running anything in them.

If anything is wrong with a file, its reader raises a `StoreError` that names it. No reader unpickles, follows symbolic
links out of a folder, resolves `${...}` or unpacks archives.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

import yaml

from lockdec.errors import StoreError

Kind = TypeVar("Kind")

RESULT, CONFIG = "result.json", "config.yaml"  # of a run
MADE_BEFORE = Path(
    "shared", "made.json"
)  # in the folder of a sweep: the stages that were made before its cells started
MOST_BYTES = 256_000_000  # in a JSON or YAML file; ours are far smaller
MOST_NESTED = 100  # levels of a config


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        StoreError: it cannot be read, is too large or too deeply nested, or is not JSON.
    """
    try:
        return json.loads(_read(path), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not JSON ({error or 'nested too deeply'})") from error


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
    text = _read(path)
    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise StoreError(f"{path}: not the config of a run (it has an alias, *{event.anchor})")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MOST_NESTED:
                raise StoreError(f"{path}: not the config of a run (nested too deeply)")
            if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
                raise StoreError(f"{path}: not the config of a run ({event.value!r} is not resolved)")
        config = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise StoreError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise StoreError(f"{path}: not the config of a run")
    return config


def _read(path: Path) -> str:
    try:
        length = path.stat().st_size
        if not path.is_file() or length > MOST_BYTES:
            raise StoreError(f"{path}: not a file of at most {MOST_BYTES:,} bytes")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # not UTF-8, or a name with a null byte
        raise StoreError(f"{path}: cannot be read ({error})") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


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
        raise StoreError(
            f"{path}: no {kind.__name__} ({unknown[0] if isinstance(value, dict) else value} is not known)"
        )
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise StoreError(f"{path}: no {kind.__name__} ({place}: {problem['msg'].lower()})") from error
