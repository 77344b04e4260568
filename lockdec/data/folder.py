"""A user's folder: captions.csv or captions.jsonl, and the files that it names. Needs no torch."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from os.path import expanduser
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lockdec.console import console, printable
from lockdec.data.captions import Case, Modality
from lockdec.data.images import ENDINGS, FORMATS, is_image
from lockdec.data.listed import BadRows, Drawn, ListedCaptions, OnBad, Row
from lockdec.data.sounds import ENDINGS as SOUND_ENDINGS
from lockdec.data.sounds import RATE
from lockdec.data.sources import ArrayFiles, FeatureIds, Files, ImageFiles, InputSource, SoundFiles, Texts
from lockdec.data.utf8 import read_utf8
from lockdec.errors import ConfigError, DataError
from lockdec.store.reading import opened

TABLES = ("captions.csv", "captions.jsonl")
_CAPTION = "caption"
_CAPTIONS = re.compile(r"captions?[ _-]?\d*")  # names of columns of captions
_FILE_NAME = re.compile(r"\S+\.[a-z][a-z0-9]{1,4}", re.IGNORECASE)
_ENDS_AS_FILE = re.compile(r"[^\s.]\.[a-z][a-z0-9]{1,4}\Z", re.IGNORECASE)
_FEW_ENDINGS = 3  # of the files of a folder, upper and lower case alike
_LONGEST_CELL = (1 << 31) - 1  # for the csv module; too long a text is a bad row later
_Kind: TypeAlias = Literal["image", "sound", ".npy", "text", "other"]


class Folder(ListedCaptions):
    """The inputs and captions of `captions.csv` or `captions.jsonl` in a folder.

    Each row names an `input` and one or more captions; the captions of rows with the same input are merged. `split`
    (train, val, test) and `id` are optional. CSV: the columns `input`, `caption`, `caption_2`, `caption_3` and so on,
    separated by commas, semicolons or tabs. JSON lines: `input`, and `caption` (a text) or `captions` (a list of
    texts).

    Args:
        path: the folder, which contains all files that the rows name.
        modality: "image" (files), "text" (the entry itself) or "array" (sounds, .npy files, or ids for the encoder
            `features`); None decides by the endings of the files, and for pictures also by their content.
        split_seed, val_share, test_share: how to split if the file does not specify a split.
        on_bad: rows that cannot be used are an error, which lists them ("error"), or left out ("skip").
        limit: approximate number of inputs to use; None for all.
        cache: a folder that remembers which files have been checked; None to check them every time.
        case: "lower" folds the captions, "keep" keeps their case.
        rate: samples a second that sounds are brought to: those that the encoder reads.

    Raises:
        ConfigError: `data.rate` is out of range.
        DataError: a file or a row cannot be used; the error names both.
    """

    def __init__(
        self,
        path: str,
        modality: Modality | None = None,
        split_seed: int = 0,
        val_share: float = 0.1,
        test_share: float = 0.1,
        on_bad: OnBad = "error",
        limit: int | None = None,
        cache: str | None = None,
        case: Case = "lower",
        rate: int = RATE,
    ) -> None:
        if not 1_000 <= rate <= 192_000:
            raise ConfigError(f"data.rate={rate}: from 1000 to 192000 samples a second")
        folder = Path(expanduser(path))
        table = _table(folder)
        bad = BadRows(on_bad, str(table))
        rows = list((_csv_rows if table.suffix == ".csv" else _json_rows)(table, bad))
        if not rows:
            bad.stop()
            raise bad.unusable("no usable row in it")
        source = _source(folder, table, rows, modality, rate)
        self.rate = rate if isinstance(source, SoundFiles) else None
        super().__init__(
            rows,
            source,
            bad,
            drawn=Drawn(split_seed, val_share, test_share),
            limit=limit,
            cache=cache,
            case=case,
        )


def _table(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"data.path={folder}: no such folder")
    found = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(found) != 1:
        has = "both of them are" if found else "none is"
        raise DataError(f"data.path={folder}: one of {' and '.join(TABLES)} is needed, but {has} there")
    return found[0]


def _source(folder: Path, table: Path, rows: Sequence[Row], modality: Modality | None, rate: int) -> InputSource:
    named = [row for row in rows if row.input] or rows
    files = ImageFiles(folder)
    kind = _array_kind(files, named) if modality == "array" else modality or _kind(files, table, named)
    match kind:
        case "image":
            return files
        case "text":
            return Texts()
        case "sound":
            return SoundFiles(folder, rate)
        case ".npy":
            return ArrayFiles(folder)
        case _:
            return FeatureIds()


def _kind(files: ImageFiles, table: Path, rows: Sequence[Row]) -> _Kind:
    """What the inputs are: what the first one is, or if that is a file of another kind, the first file that is read.

    Raises:
        DataError: the first input is a file of another kind and no other is read, or it is a text and others are files.
    """
    first, kinds = rows[0], (_kind_of(files, row.input) for row in rows)
    kind = next(kinds)
    named = [row for row in rows if _ENDS_AS_FILE.search(row.input)] if kind == "text" else []
    endings = {Path(row.input).suffix.lower() for row in named}
    # Names may have blanks, but hardly any sentences end like names, and all of them in the same few ways.
    if len(named) >= 0.9 * len(rows) and len(endings) <= _FEW_ENDINGS:
        first, kind = named[0], "other"
    if kind == "other":
        kind = next((kind for kind in kinds if kind not in ("text", "other")), "other")
    if kind == "other":
        ending = Path(first.input).suffix
        what = f"files that end in {ending} are not read" if ending else "it is not a file of a kind that is read"
        raise DataError(
            f"{table} {first.where}: {first.input!r}: {what} (pictures are: {', '.join(FORMATS)}; sounds: "
            f"{', '.join(SOUND_ENDINGS)}; arrays: .npy); if inputs are texts or ids, say data.modality=text or "
            "data.modality=array"
        )
    if kind == "text" and any(path != table for path in files.folder.iterdir()):
        for row in rows:
            if os.path.isfile(files.folder / row.input):
                raise DataError(f"{table} {row.where}: {row.input!r} is a file, but {first.input!r} in {first.where} "
                                "is not; say data.modality=image, array or text")  # fmt: skip
    return kind


def _kind_of(files: ImageFiles, entry: str) -> _Kind:
    """What an input is by the ending of its name, or if that says nothing, whether its content is that of a picture."""
    ending = Path(entry).suffix.lower()
    if ending == ".npy":
        return ".npy"
    if ending in SOUND_ENDINGS:
        return "sound"
    if ending in (*ENDINGS, ".svg"):  # SVG is refused by name
        return "image"
    try:
        with opened(files.path(files.name(entry))) as file:
            return "image" if is_image(file.read(16)) else "other"
    except (DataError, OSError):
        return "other" if _FILE_NAME.fullmatch(entry) else "text"


def _array_kind(files: Files, rows: Sequence[Row]) -> Literal["sound", ".npy", "id"]:
    """What arrays are: what the first is that names a .npy file, or a sound that is there: ids may look like sounds."""
    for row in rows:
        ending = Path(row.input).suffix.lower()
        if ending == ".npy":
            return ".npy"
        if ending in SOUND_ENDINGS:
            try:
                files.path(files.name(row.input))
            except DataError:
                continue
            return "sound"
    return "id"


def _csv_rows(path: Path, bad: BadRows) -> list[Row]:
    text = read_utf8(path)
    limit = csv.field_size_limit(_LONGEST_CELL)  # a setting of the whole process
    try:
        return list(_parsed_csv(path, text, bad))
    finally:
        csv.field_size_limit(limit)


def _parsed_csv(path: Path, text: str, bad: BadRows) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    header: list[str] | None = None
    for fields, start in _records(path, reader, bad):
        if header is None:
            header = _header(path, start, fields)
            continue
        if not any(itertools.islice(fields, len(header), None)):
            fields = fields[: len(header)]
        if len(fields) != len(header):
            bad.add(f"line {start}", f"{len(fields)} fields, but the header has {len(header)}; "
                    "a caption with a comma in it stands in double quotes")  # fmt: skip
            continue
        named = list(zip(header, fields, strict=True))
        values = dict(named)
        yield Row(
            where=f"line {start}",
            input=values["input"].strip(),
            captions=tuple(value for name, value in named if _CAPTIONS.fullmatch(name)),
            split=values.get("split", "").strip() or None,
            id=values.get("id", "").strip() or None,
        )
    if header is None:
        raise DataError(f"{path}: empty; its first line names the columns: input,{_CAPTION}")


def _records(path: Path, reader: Any, bad: BadRows) -> Iterator[tuple[list[str], int]]:
    """The fields of each record that is not blank, and its first line."""
    first = True
    while True:
        start = reader.line_num + 1  # a quoted field may span several lines
        try:
            fields = [field.removeprefix("\ufeff") for field in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            if first or "end of data" in str(error):  # a quotation mark that is not closed takes in all that follows
                raise DataError(f"{path} line {start}: not CSV ({error})") from error
            bad.add(f"line {start}", f"not CSV ({error})")
            continue
        if any(map(str.strip, fields)):
            first = False
            yield fields, start


def _delimiter(text: str) -> str:
    """What separates the names of the columns: a comma, or as some spreadsheets write it, a semicolon or tab."""
    line = next(filter(str.strip, text.splitlines()), "")
    return next((found for found in ",;\t" if "input" in _columns(line.split(found))), ",")


def _columns(fields: Sequence[str]) -> list[str]:
    return [field.strip().strip('\ufeff"').strip().lower() for field in fields]


def _header(path: Path, line: int, fields: list[str]) -> list[str]:
    header = _columns(fields)
    for name in ("input", "split", "id"):
        if header.count(name) > 1:
            raise DataError(f"{path} line {line}: two columns {name}; one is needed")
    captions = list(filter(_CAPTIONS.fullmatch, header))
    missing = [*(() if "input" in header else ("input",)), *(() if captions else (_CAPTION,))]
    if missing:
        raise DataError(f"{path} line {line}: no column {' and no column '.join(missing)} (there are: "
                        f"{', '.join(fields)}); the first line names the columns: input,{_CAPTION}")  # fmt: skip
    if others := [name for name in header if name.startswith(_CAPTION) and name not in captions]:
        _say_once(
            f"{path}: captions are read from {', '.join(captions)}, but not from {', '.join(others)}: columns of "
            "captions are named caption, caption_2, caption_3 and so on"
        )
    return header


@cache
def _say_once(line: str) -> None:
    console.print(f"  {printable(line)}", soft_wrap=True)


def _json_rows(path: Path, bad: BadRows) -> Iterator[Row]:
    for number, line in enumerate(read_utf8(path).split("\n"), start=1):
        where = f"line {number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            bad.add(where, f"not JSON ({error}); each line is an object with input and {_CAPTION}")
            continue
        if problem := _wrong(record):
            bad.add(where, problem)
            continue
        captions = [text for name in filter(_CAPTIONS.fullmatch, record) for text in _list(record[name])]
        split, name = (record.get(key, "").strip() or None for key in ("split", "id"))
        yield Row(where, record["input"].strip(), tuple(captions), split, name)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without the values that are null.

    Raises:
        ValueError: a name occurs twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name in found if [other for other, _ in pairs].count(name) > 1)
        raise ValueError(f"{twice!r} occurs twice")
    return {name: value for name, value in pairs if value is not None}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _wrong(record: Any) -> str | None:
    """What is wrong with the value of a JSON line."""
    if not isinstance(record, Mapping):
        return f"not an object; each line has input and {_CAPTION}"
    for name in ("input", _CAPTION, "split", "id"):
        if name in record and not isinstance(record[name], str):
            return f"{name} is not a text"
    if "input" not in record:
        return f"no input (there are: {', '.join(name.encode(errors='backslashreplace').decode() for name in record)})"
    if (_CAPTION in record) == ("captions" in record):
        return f"either {_CAPTION} or captions is needed"
    if not isinstance(record.get("captions", []), list):
        return "captions is not a list of texts"
    for name in filter(_CAPTIONS.fullmatch, record):
        if not all(isinstance(caption, str) for caption in _list(record[name])):
            return f"{name} is not {'a list of texts' if name == 'captions' else 'a text'}"
    return None
