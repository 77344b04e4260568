"""Read what runs left on disk: result.json, checked and flattened to one row, and the files beside it."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockdec.console import track
from lockdec.errors import DataError, StoreError
from lockdec.evaluation.result import CONTROLS, READABLE, current, current_caption
from lockdec.store.reading import (
    ATTENTION,
    CAPTIONS,
    CONFIG,
    MADE_BEFORE,
    RESULT,
    from_json,
    read_bytes,
    read_object,
    run_folders,
    within,
)

Scalar = str | int | float | bool | None

STATUSES = ("ok", "failed", "interrupted", "pruned")
NUMBERS = (
    "seed",
    "metrics.",
    "controls.",
    "gap_over_prior.",
    "gap_over_locked.",
    "cost.",
    "parameters.",
    "attributes.",
    "looking.",
    "unlock.",
    "fewshot.",
    "cross_attention.d_",
    "cross_attention.heads",
    "cross_attention.parameters",
)
FIRST_COLUMNS = ("folder", "name", "sweep_name", "status", "error", "seed", "fewshot.support_seed")
LAST_COLUMNS = ("started", "finished", "overrides", "command")
MOST_BYTES = 16_000_000  # of each other file of a run that a report reads; their Python objects take 50 times as much


@dataclass(frozen=True)
class Stage:
    """One stage of one run.

    Attributes:
        key: of its artifact.
        reused: whether that was there already.
        seconds: until it was there.
        made_in: the seconds that making it took, in this run or before; None where an older run does not say.
        version: of the code that made it; None where an older run does not say.
    """

    name: str
    key: str
    reused: bool
    seconds: float
    made_in: float | None = None
    version: int | None = None


@dataclass(frozen=True)
class Run:
    """One result.json. `values` has its numbers and texts under their dotted names (`metrics.token_f1`)."""

    folder: Path
    label: str
    values: Mapping[str, Scalar]
    stages: tuple[Stage, ...]
    overrides: tuple[str, ...]

    @property
    def status(self) -> str:
        """`ok`, `failed`, `interrupted` or `pruned`."""
        return str(self.values["status"])

    def number(self, name: str) -> float | None:
        """The number under this dotted name; None where the run has none."""
        value = self.values.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def text(self, name: str) -> str:
        """The value under this dotted name as text, empty where the run has none."""
        value = self.values.get(name)
        return "" if value is None else str(value)

    @property
    def made_in(self) -> float | None:
        """The seconds that making all its stages took, in this run or before; None where an older run does not say."""
        seconds = [stage.made_in if stage.reused else stage.seconds for stage in self.stages]
        known = [one for one in seconds if one is not None]
        return sum(known) if known and len(known) == len(seconds) else None

    @property
    def seconds_label(self) -> str:
        """What `cost.seconds` counts: not the making of stages that were there already."""
        reused = sum(stage.reused for stage in self.stages)
        if not reused:
            return "Seconds of this run"
        if reused == len(self.stages):
            return "Seconds of this run, which reused every stage"
        return f"Seconds of this run, which reused {reused} of {len(self.stages)} stages"

    def row(self) -> dict[str, Scalar]:
        """Everything of the run as one flat row, as in results.csv."""
        row: dict[str, Scalar] = {"folder": self.label, **self.values}
        for stage in self.stages:
            row |= {
                f"stages.{stage.name}.key": stage.key,
                f"stages.{stage.name}.reused": stage.reused,
                f"stages.{stage.name}.seconds": stage.seconds,
            }
            if stage.made_in is not None:
                row[f"stages.{stage.name}.made_in"] = stage.made_in
        return row | {"overrides": shlex.join(self.overrides)}


@dataclass(frozen=True)
class Skipped:
    """A result.json that cannot be used, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Collection:
    """All runs found below some folders, what had to be skipped, and cells that left no result at all.

    Attributes:
        shared: the stages that a sweep made before its cells.
    """

    runs: tuple[Run, ...]
    skipped: tuple[Skipped, ...]
    unfinished: tuple[str, ...]
    shared: tuple[Stage, ...] = ()


@dataclass(frozen=True)
class Captioned:
    """One row of captions.jsonl.

    Attributes:
        captions: the captioner's under `caption`, the controls' under their names.
        confidence: of the captioner's caption, from 0 to 1; None in runs of earlier releases.
    """

    id: str
    references: tuple[str, ...]
    captions: Mapping[str, str]
    confidence: float | None = None


@dataclass(frozen=True)
class AttentionMap:
    """Cross-attention over one input, word by word: `weights[word][state]`, the states in rows of a grid."""

    words: tuple[str, ...]
    grid: tuple[int, int]
    weights: tuple[tuple[float, ...], ...]


def read(folders: Sequence[Path]) -> Collection:
    """Every run in or below these folders, sorted by path with numbers in numeric order.

    A result.json that cannot be used is skipped and named: damaged, too large, of an unknown schema, no regular file.
    DataError when a folder does not exist or there is no result.json at all.
    """
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder (give the folder of a run or of a sweep)")
    roots = list(dict.fromkeys(folder.resolve() for folder in folders))
    above = Path(os.path.commonpath([root.parent for root in roots]))
    candidates = sorted({cell for root in roots for cell in run_folders(root)}, key=_natural)
    runs: list[Run] = []
    skipped: list[Skipped] = []
    unfinished: list[str] = []
    for cell in track(candidates, "reading results"):
        label = cell.relative_to(above).as_posix()
        if not os.path.lexists(cell / RESULT):
            unfinished.append(label)
            continue
        try:
            runs.append(_read_run(cell, label))
        except DataError as error:
            skipped.append(Skipped(cell / RESULT, str(error)))
    if not runs and not skipped:
        names = ", ".join(map(str, folders))
        raise DataError(f"{names}: no result.json here or below (a run writes one when it ends)")
    shared: list[Stage] = []
    places = (place for cell in candidates for place in cell.parents if place.is_relative_to(above))
    for sweep in dict.fromkeys(places):
        try:
            shared += _shared(sweep)
        except DataError as error:
            skipped.append(Skipped(sweep / MADE_BEFORE, str(error)))
    return Collection(tuple(runs), tuple(skipped), tuple(unfinished), tuple(shared))


def read_captions(run: Run) -> tuple[list[Captioned], list[str]]:
    """The rows of a run's captions.jsonl, in order, and one line for each row that cannot be used."""
    path = run.folder / CAPTIONS
    rows: list[Captioned] = []
    notes: list[str] = []
    for number, row in _json_lines(run, path.name, notes):
        references = row.get("references")
        if not isinstance(row.get("id"), str) or not isinstance(references, list):
            notes.append(f"{path}: row {number} needs an id (text) and references (a list); it is left out")
            continue
        names = current_caption(row)
        captions = {kind: text for kind in ("caption", *CONTROLS) if isinstance(text := names.get(kind), str)}
        confidence = row.get("confidence")
        if not isinstance(confidence, int | float) or not 0 <= confidence <= 1:
            confidence = None
        rows.append(Captioned(str(row["id"]), tuple(map(str, references)), captions, confidence))
    return rows, notes


def read_attention(run: Run) -> dict[str, AttentionMap]:
    """Attention maps by input id, from attention.jsonl beside captions.jsonl where a run has one.

    A row is {"id", "words": [w], "grid": [rows, columns], "weights": [w][rows * columns]}, row by row of the
    grid; other rows are left out.
    """
    maps: dict[str, AttentionMap] = {}
    for _, row in _json_lines(run, ATTENTION, []):
        try:
            rows, columns = map(int, row["grid"])
            words = tuple(map(str, row["words"]))
            weights = tuple(tuple(map(float, word)) for word in row["weights"])
        except (KeyError, TypeError, ValueError):
            continue
        fits = min(rows, columns) > 0 and all(len(word) == rows * columns for word in weights)
        if fits and len(words) == len(weights):
            maps[str(row.get("id"))] = AttentionMap(words, (rows, columns), weights)
    return maps


def drawing(run: Run, input_id: str, most_bytes: int = 300_000) -> bytes | None:
    """The PNG of a test input (drawings/ID.png), None where there is none or it is too large for a page."""
    try:
        content = _content(run, f"drawings/{input_id}.png", most_bytes)
    except StoreError:
        return None
    return content if content and content.startswith(b"\x89PNG\r\n\x1a\n") else None


def config_text(run: Run) -> str:
    """The text of config.yaml; empty where the run has none, or one that cannot be read."""
    try:
        return (_content(run, CONFIG, MOST_BYTES) or b"").decode(errors="replace")
    except StoreError:
        return ""


def curves(run: Run) -> tuple[dict[str, dict[str, list[tuple[float, float]]]], list[str]]:
    """(step, value) by stage and metric, from stages/<stage>/metrics.csv, and one line for each damaged file.

    Of a damaged file, the rows up to the first one that is not CSV count, and their finite numbers.
    """
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    notes: list[str] = []
    for path in sorted(run.folder.glob("stages/*/metrics.csv")):
        lines: dict[str, list[tuple[float, float]]] = {}
        whole = False
        try:
            content = _content(run, path.relative_to(run.folder).as_posix(), MOST_BYTES) or b""
            table = csv.DictReader(io.StringIO(content.decode(errors="replace"), newline=""))
            whole = "step" in (table.fieldnames or ())
            for row in table:
                step = _finite(row.get("step"))
                whole = whole and step is not None and all(map(_is_cell, row.values()))
                for name, text in row.items():
                    value = _finite(text)
                    if name and name not in ("step", "epoch") and step is not None and value is not None:
                        lines.setdefault(name, []).append((step, value))
        except StoreError as error:
            notes.append(f"{error}; its curve is left out")
            continue
        except csv.Error:
            whole = False
        if not whole:
            notes.append(f"{path}: damaged; what cannot be read of the curve is left out")
        if lines:
            found[path.parent.name] = lines
    return found, notes


def columns(runs: Iterable[Run]) -> list[str]:
    """The columns of results.csv: identity first, then every dotted name in the order of result.json."""
    names = dict.fromkeys(name for run in runs for name in run.row())
    middle = [name for name in names if name not in FIRST_COLUMNS and name not in LAST_COLUMNS]
    return [*(n for n in FIRST_COLUMNS if n in names), *middle, *(n for n in LAST_COLUMNS if n in names)]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_object(path)
    except StoreError as error:
        raise DataError(str(error).removeprefix(f"{path}: ")) from error
    if content.get("schema") not in READABLE:
        known = ", ".join(map(str, READABLE))
        raise DataError(f"schema={content.get('schema')!r}: this version of lockdec reads {known}")
    return current(content)


def _content(run: Run, name: str, most: int) -> bytes | None:
    """The content of a file in the run's folder; None where there is no such file.

    Raises:
        StoreError: it is not a regular file of at most so many bytes, or a link leads there.
    """
    path = within(run.folder, name)
    return read_bytes(path, most) if os.path.lexists(path) else None


def _shared(sweep: Path) -> list[Stage]:
    try:
        path = within(sweep, MADE_BEFORE)
    except StoreError as error:
        raise DataError(str(error)) from error
    stages = _object(_read(path).get("stages"), "stages") if os.path.lexists(path) else {}
    return [_stage(name, stage) for name, stage in stages.items()]


_LARGEST = 1e150  # of a number: its square is a number, and so is a sum of squares


def _read_run(folder: Path, label: str) -> Run:
    result = _read(folder / RESULT)
    if result.get("status") not in STATUSES:
        raise DataError(f"status={result.get('status')!r} is none of {', '.join(STATUSES)}")
    overrides = result.pop("overrides", None) or []
    if not isinstance(overrides, list):
        raise DataError("overrides is not a list")
    stages = tuple(_stage(name, stage) for name, stage in _object(result.pop("stages", None), "stages").items())
    values = dict(_flatten(result))
    for name, value in values.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name.startswith(NUMBERS) and value is not None and not is_number:
            raise DataError(f"{name}={value!r} is not a number")
        if isinstance(value, float) and abs(value) > _LARGEST:
            raise DataError(f"{name}={value!r} is larger than any number of a run")
    del values["schema"]
    return Run(folder, label, values, stages, tuple(map(str, overrides)))


def _stage(name: str, stage: object) -> Stage:
    fields = _object(stage, f"stages.{name}")
    key, reused, seconds, made_in = (fields.get(field) for field in ("key", "reused", "seconds", "made_in"))
    if not isinstance(reused, bool | None) or any(isinstance(s, bool | str | list | dict) for s in (seconds, made_in)):
        raise DataError(f"stages.{name} needs key, reused (true or false) and seconds")
    version = fields.get("version")
    if not isinstance(version, int | None) or isinstance(version, bool):
        raise DataError(f"stages.{name}.version={version!r} is not a whole number")
    return Stage(name, str(key or ""), bool(reused), _finite(seconds) or 0.0, _finite(made_in), version)


def _object(value: object, name: str) -> dict[str, object]:
    if value is not None and not isinstance(value, dict):
        raise DataError(f"{name} is not a JSON object")
    return value or {}


def _flatten(value: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flatten(inner, f"{prefix}{key}.")
        elif isinstance(inner, list):
            yield prefix + key, json.dumps(inner)
        elif inner is None or isinstance(inner, str | int | float):
            yield prefix + key, inner


def _json_lines(run: Run, name: str, notes: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        content = _content(run, name, MOST_BYTES) or b""
    except StoreError as error:
        notes.append(f"{error}; it is left out")
        return
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            row = from_json(line.decode(errors="replace"))
        except ValueError:
            row = None
        if isinstance(row, dict):
            yield number, row
        elif line.strip():
            notes.append(f"{run.folder / name}: row {number} is not a JSON object; it is left out")


def _finite(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _is_cell(text: object) -> bool:
    """Whether a cell of a curve is as runs write it: empty, or a number, which may be NaN."""
    try:
        float(str(text) or 0)
    except ValueError:
        return False
    return True


def _natural(path: Path) -> list[tuple[int, int, str]]:
    pieces = re.split(r"(\d+)", path.as_posix())
    return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces]
