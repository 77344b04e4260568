"""Data sets of the `datasets` package, from the Hugging Face hub or a folder; rows are read on demand.

No code of a data set is run; `datasets` only reads its tables. Needs no torch.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from os.path import expanduser
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from lockdec.data.captions import SPLITS, Case, Input, Modality, composed
from lockdec.data.images import DecodedPictures, open_image
from lockdec.data.listed import BadRows, Drawn, ListedCaptions, OnBad, Row
from lockdec.data.sources import InputSource, finite_array, inside
from lockdec.errors import ConfigError, DataError

_AT_ONCE = 1_000  # rows read together


class HuggingFaceDataset(ListedCaptions):
    """One column of a data set as inputs (images, texts or arrays of numbers), and one or more others as captions.

    Args:
        path: a folder that `save_to_disk` wrote, or the id of a data set on the hub.
        input: the column of the inputs; its type decides the modality.
        caption: the column of the captions, each a text or a list of texts; or several columns.
        subset: the name of the subset, for a data set on the hub that has several.
        revision: the revision of a data set on the hub; a commit pins the rows.
        splits: its names for train, val and test; None draws them from the split "train", or from the only one.
        split_seed, val_share, test_share: how they are drawn.
        on_bad, limit, cache, case: see `lockdec.data.folder.Folder`.

    Raises:
        ConfigError: a column or split is not there.
        DataError: there is no such data set, or a row cannot be used.
    """

    def __init__(
        self,
        path: str,
        input: str = "image",
        caption: str | list[str] = "caption",
        subset: str | None = None,
        revision: str | None = None,
        splits: dict[str, str] | None = None,
        split_seed: int = 0,
        val_share: float = 0.1,
        test_share: float = 0.1,
        on_bad: OnBad = "error",
        limit: int | None = None,
        cache: str | None = None,
        case: Case = "lower",
    ) -> None:
        columns = [caption] if isinstance(caption, str) else caption
        tables = _chosen(path, _load(path, subset, revision), splits)
        for name in (input, *columns):
            for table in tables.values():
                if name not in table.column_names:
                    key = "input" if name == input else "caption"
                    known = ", ".join(table.column_names)
                    raise ConfigError(f"data.{key}={name}: data.path={path} has no such column (there are: {known})")
        bad = BadRows(on_bad, f"data.path={path}")
        super().__init__(
            _rows(path, tables, columns, bad, drawn=splits is None),
            _source(path, tables, input),
            bad,
            drawn=Drawn(split_seed, val_share, test_share),
            limit=limit,
            cache=cache,
            case=case,
        )


def _load(path: str, subset: str | None, revision: str | None) -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise DataError("data=huggingface needs datasets: pip install 'lockdec[datasets]'") from error
    folder = Path(expanduser(path))
    if folder.exists():
        try:
            return datasets.load_from_disk(str(folder))
        except Exception as error:  # damaged files raise many kinds of exceptions
            reason = " ".join(str(error).split())
            raise DataError(f"data.path={path}: not a folder that save_to_disk of datasets wrote ({reason})") from error
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)  # it logs every retry
    try:
        return datasets.load_dataset(path, name=subset, revision=revision)
    except Exception as error:  # no network, a wrong id, a wrong subset: each has its own family of exceptions
        reason = " ".join(str(error).split()).split(". ")[0]
        raise DataError(f"data.path={path}: neither a folder here nor a data set that can be fetched from the "
                        f"Hugging Face hub ({reason})") from error  # fmt: skip
    finally:
        logger.setLevel(before)


def _chosen(path: str, loaded: Any, splits: Mapping[str, str] | None) -> dict[str, Any]:
    """The tables by the split they become: train, val and test, or only train if splits are drawn from it."""
    tables = dict(loaded) if isinstance(loaded, Mapping) else {"train": loaded}
    if splits is None:
        if "train" not in tables and len(tables) != 1:
            raise ConfigError(f"data.splits=null: data.path={path} has no split train (there are: {', '.join(tables)})")
        return {"train": tables.get("train", next(iter(tables.values())))}
    if set(splits) != set(SPLITS):
        raise ConfigError(f"data.splits={dict(splits)}: a name for each of {', '.join(SPLITS)}, or null to draw them")
    if len(set(splits.values())) < len(SPLITS):
        raise ConfigError(f"data.splits={dict(splits)}: name three different ones; what is held out has to be new")
    for split, name in splits.items():
        if name not in tables:
            there = ", ".join(tables)
            raise ConfigError(f"data.splits.{split}={name}: data.path={path} has no such split (there are: {there}; "
                              "data.splits=null draws them)")  # fmt: skip
    return {split: tables[splits[split]] for split in SPLITS}


def _rows(path: str, tables: Mapping[str, Any], columns: Sequence[str], bad: BadRows, drawn: bool) -> Iterator[Row]:
    for split, table in tables.items():
        for number, values in enumerate(_records(table.select_columns(list(columns)), columns)):
            where = f"{split} row {number}"
            if isinstance(values, UnicodeDecodeError):
                bad.add(where, f"{', '.join(columns)} contains a text that is not UTF-8")
                continue
            captions = [text for value in values for text in (value if isinstance(value, list) else [value])]
            if not all(isinstance(text, str) for text in captions):
                bad.add(where, f"{', '.join(columns)} contains something other than texts")
                continue
            yield Row(where, f"{split}-{number}", tuple(captions), None if drawn else split)


def _records(table: Any, columns: Sequence[str]) -> Iterator[list[Any] | UnicodeDecodeError]:
    """The values of these columns, row by row; an error where a text is not UTF-8, which the files may contain."""
    for start in range(0, len(table), _AT_ONCE):
        rows = range(start, min(start + _AT_ONCE, len(table)))
        try:
            batch = table[start : rows.stop]
            yield from map(list, zip(*(batch[name] for name in columns), strict=True))
        except UnicodeDecodeError:
            yield from (_record(table, row, columns) for row in rows)


def _record(table: Any, row: int, columns: Sequence[str]) -> list[Any] | UnicodeDecodeError:
    try:
        record = table[row]
    except UnicodeDecodeError as error:
        return error
    return [record[name] for name in columns]


def _source(path: str, tables: Mapping[str, Any], column: str) -> InputSource:
    import datasets

    feature = tables["train"].features[column]
    if isinstance(feature, datasets.Image):
        raw = {split: table.cast_column(column, datasets.Image(decode=False)) for split, table in tables.items()}
        return _Images(path, raw, column)
    if isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string"):
        return _Strings(path, tables, column)
    if isinstance(feature, datasets.List | datasets.LargeList | datasets.Array2D):
        plain = {split: table.with_format("numpy", columns=[column]) for split, table in tables.items()}
        return _Arrays(path, plain, column)
    raise ConfigError(f"data.input={column}: a column of images, texts or arrays is needed, not of {feature}")


class _Cells(InputSource):
    """The cells of one column; the entry "train-3" is the one in row 3 of the split train."""

    def __init__(self, path: str, tables: Mapping[str, Any], column: str) -> None:
        self._tables, self._column = tables, column
        self._local = Path(expanduser(path)).exists()
        self._files = [
            Path(file["filename"]).resolve() for table in tables.values() for file in getattr(table, "cache_files", [])
        ]
        self.place = f"{path} {column} {sorted(map(str, self._files))}"
        statuses = [file.stat() for file in self._files]
        self._stamp = [number for status in statuses for number in (status.st_size, status.st_mtime_ns)]

    def stamp(self, entry: str) -> list[int] | None:
        return self._stamp or None

    def cell(self, entry: str) -> Any:
        split, _, number = entry.rpartition("-")
        return self._tables[split][int(number)][self._column]


class _Strings(_Cells):
    modality: Modality = "text"

    def check(self, entry: str) -> str:
        return hashlib.sha256(str(self.read(entry)).encode()).hexdigest()

    def read(self, entry: str) -> Input:
        try:
            text = self.cell(entry)
        except UnicodeDecodeError as error:
            raise DataError("a text that is not UTF-8") from error
        if not isinstance(text, str) or not text.strip():
            raise DataError("an empty text; every input needs one")
        return composed(text)


class _Arrays(_Cells):
    modality: Modality = "array"

    def check(self, entry: str) -> str:
        states = np.ascontiguousarray(self.read(entry))
        return hashlib.sha256(f"{states.shape}".encode() + states.tobytes()).hexdigest()

    def read(self, entry: str) -> Input:
        return finite_array(np.asarray(self.cell(entry)), entry)


class _Images(_Cells):
    modality: Modality = "image"
    version: str = f"1, pillow {PIL.__version__}"

    def __init__(self, path: str, tables: Mapping[str, Any], column: str) -> None:
        super().__init__(path, tables, column)
        self._decoded = DecodedPictures()

    def check(self, entry: str) -> str:
        content = self._content(entry)
        self._decoded.keep(entry, open_image(content, entry))
        return hashlib.sha256(content).hexdigest()

    def read(self, entry: str) -> Input:
        return self._decoded.get(entry) or open_image(self._content(entry), entry)

    def _content(self, entry: str) -> bytes:
        cell = self.cell(entry)
        if not cell:
            raise DataError("no image in this row")
        if cell["bytes"] is not None:
            return bytes(cell["bytes"])
        for folder in self._folders():
            try:
                return inside(folder, str(cell["path"])).read_bytes()
            except (DataError, OSError):
                continue
        raise DataError(f"its image is only named ({cell['path']!r}), and lies outside the data set; embed the images")

    def _folders(self) -> set[Path]:
        """Where files may be that the data set only names: beside its tables, or in the download from the hub."""
        if self._local:
            return {file.parent for file in self._files}
        from huggingface_hub.constants import HF_HUB_CACHE

        return {Path(HF_HUB_CACHE)}
