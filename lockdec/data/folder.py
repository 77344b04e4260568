"""A user's folder: captions.csv or captions.jsonl, and the files that it names. Needs no torch."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lockdec.data.captions import Modality
from lockdec.data.listed import BadRows, Drawn, ListedCaptions, OnBad, Row
from lockdec.data.sources import ArrayFiles, FeatureIds, ImageFiles, InputSource, Texts
from lockdec.errors import DataError

TABLES = ("captions.csv", "captions.jsonl")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".svg")
_CAPTION = "caption"


class Folder(ListedCaptions):
    """The inputs and captions of `captions.csv` or `captions.jsonl` in a folder.

    Each row names an `input` and one or more captions; the captions of rows with the same input are merged. `split`
    (train, val, test) and `id` are optional. CSV: the columns `input`, `caption` and others that start with "caption".
    JSON lines: `input`, and `caption` (a text) or `captions` (a list of texts).

    Args:
        path: the folder, which contains all files that the rows name.
        modality: "image" (files), "text" (the entry itself) or "array" (.npy files, or ids for the encoder
            `features`); None decides by the file extension of the first input.
        split_seed, val_share, test_share: how to split if the file does not specify a split.
        on_bad: "error" stops at the first row that cannot be used, "skip" skips and lists such rows.
        limit: approximate number of inputs to use; None for all.
        cache: a folder that remembers which files have been checked; None to check them every time.

    Raises:
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
    ) -> None:
        folder = Path(path).expanduser()
        table = _table(folder)
        bad = BadRows(on_bad)
        rows = list((_csv_rows if table.suffix == ".csv" else _json_rows)(table, bad))
        if not rows:
            raise DataError(f"{table}: no usable row in it")
        super().__init__(
            rows,
            _source(folder, rows[0].input, modality),
            bad,
            what=str(table),
            drawn=Drawn(split_seed, val_share, test_share),
            limit=limit,
            cache=cache,
        )


def read_utf8(path: Path) -> str:
    """The text of a user's file.

    Raises:
        DataError: it cannot be read or is not UTF-8; the error names the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path} line {line}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error


def _table(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"data.path={folder}: no such folder")
    found = [folder / name for name in TABLES if (folder / name).is_file()]
    if len(found) != 1:
        has = "both of them are" if found else "none is"
        raise DataError(f"data.path={folder}: one of {' and '.join(TABLES)} is needed, but {has} there")
    return found[0]


def _source(folder: Path, first: str, modality: Modality | None) -> InputSource:
    ending = Path(first).suffix.lower()
    by_ending: Modality = "array" if ending == ".npy" else "image" if ending in PICTURES else "text"
    match modality or by_ending:
        case "image":
            return ImageFiles(folder)
        case "text":
            return Texts()
        case _:
            return ArrayFiles(folder) if ending == ".npy" else FeatureIds()


def _csv_rows(path: Path, bad: BadRows) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(read_utf8(path), newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for fields in reader:
            line, start = reader.line_num + 1, line  # a quoted field may span several lines
            if not fields:
                continue
            if header is None:
                header = _header(path, fields)
            elif len(fields) != len(header):
                bad.add(f"{path} line {start}", f"{len(fields)} fields, but the header has {len(header)}; "
                        "a caption with a comma in it stands in double quotes")  # fmt: skip
            else:
                named = list(zip(header, fields, strict=True))
                values = dict(named)
                yield Row(
                    where=f"{path} line {start}",
                    input=values["input"].strip(),
                    captions=tuple(value for name, value in named if name.startswith(_CAPTION)),
                    split=values["split"].strip() if "split" in values else None,
                    id=values["id"].strip() if "id" in values else None,
                )
    except csv.Error as error:
        raise DataError(f"{path} line {line}: not CSV ({error})") from error
    if header is None:
        raise DataError(f"{path}: empty; its first line names the columns: input,{_CAPTION}")


def _header(path: Path, fields: list[str]) -> list[str]:
    header = [field.strip().lower() for field in fields]
    for name in ("input", "split", "id"):
        if header.count(name) > 1:
            raise DataError(f"{path} line 1: two columns {name}; one is needed")
    has_caption = any(name.startswith(_CAPTION) for name in header)
    missing = [*(() if "input" in header else ("input",)), *(() if has_caption else (_CAPTION,))]
    if missing:
        raise DataError(f"{path} line 1: no column {' and no column '.join(missing)} (there are: {', '.join(fields)}); "
                        f"the first line names the columns: input,{_CAPTION}")  # fmt: skip
    return header


def _json_rows(path: Path, bad: BadRows) -> Iterator[Row]:
    for number, line in enumerate(read_utf8(path).split("\n"), start=1):
        where = f"{path} line {number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            bad.add(where, f"not JSON ({error}); each line is an object with input and {_CAPTION}")
            continue
        if problem := _wrong(record):
            bad.add(where, problem)
            continue
        several = record.get("captions", [record[_CAPTION]] if _CAPTION in record else [])
        yield Row(where, record["input"].strip(), tuple(several), record.get("split"), record.get("id"))


def _wrong(record: Any) -> str | None:
    """What is wrong with the value of a JSON line."""
    if not isinstance(record, Mapping):
        return f"not an object; each line has input and {_CAPTION}"
    for name in ("input", _CAPTION, "split", "id"):
        if name in record and not isinstance(record[name], str):
            return f"{name} is not a text"
    if "input" not in record:
        return f"no input (there are: {', '.join(map(str, record))})"
    if (_CAPTION in record) == ("captions" in record):
        return f"either {_CAPTION} or captions is needed"
    several = record.get("captions", [])
    if not isinstance(several, list) or not all(isinstance(caption, str) for caption in several):
        return "captions is not a list of texts"
    return None
