"""COCO, Flickr8k or Flickr30k as Karpathy and Fei-Fei (2015) split them: one JSON file and a folder of images.

Needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from os.path import expanduser
from pathlib import Path
from typing import Any

from lockdec.data.captions import Case
from lockdec.data.listed import BadRows, Drawn, ListedCaptions, OnBad, Row
from lockdec.data.sources import ImageFiles
from lockdec.data.utf8 import read_utf8
from lockdec.errors import DataError


class Karpathy(ListedCaptions):
    """The images of a `dataset_coco.json`, `dataset_flickr8k.json` or `dataset_flickr30k.json`, five captions each.

    The file specifies the split; restval is part of train, as usual.

    Args:
        path: the JSON file.
        images: the folder of the images, with or without the subfolders of COCO (`filepath`: train2014, val2014).
        on_bad, limit, cache, case: see `lockdec.data.folder.Folder`.

    Raises:
        DataError: a file or an image cannot be used.
    """

    def __init__(
        self,
        path: str,
        images: str,
        on_bad: OnBad = "error",
        limit: int | None = None,
        cache: str | None = None,
        case: Case = "lower",
    ) -> None:
        file, folder = Path(expanduser(path)), Path(expanduser(images))
        if not folder.is_dir():
            raise DataError(f"data.images={folder}: no such folder")
        bad, source = BadRows(on_bad, str(file)), ImageFiles(folder)
        rows, drawn = _rows(file, source, bad), Drawn()
        super().__init__(rows, source, bad, drawn=drawn, limit=limit, cache=cache, case=case)


def _rows(path: Path, source: ImageFiles, bad: BadRows) -> Iterator[Row]:
    try:
        records = json.loads(read_utf8(path))["images"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not Karpathy's JSON, an object with a list of images ({error!r})") from error
    if not isinstance(records, list):
        raise DataError(f"{path}: not Karpathy's JSON: images is not a list")
    for number, record in enumerate(records):
        where = f"image {number}"
        try:
            name, split = _text(record, "filename"), _text(record, "split")
            subfolder = _text(record, "filepath") if "filepath" in record else ""
            captions = tuple(_text(sentence, "raw") for sentence in record["sentences"])
        except (KeyError, TypeError) as error:
            bad.add(where, f"filename, split and sentences with raw texts are needed ({error!r})")
            continue
        yield Row(where, _entry(source, subfolder, name), captions, "train" if split == "restval" else split)


def _entry(source: ImageFiles, subfolder: str, name: str) -> str:
    """The image in its subfolder if it exists there, else directly in the folder."""
    nested = f"{subfolder}/{name}"
    try:
        source.path(source.name(nested))
    except DataError:
        return name
    return nested if subfolder else name


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is not a text")
    return value
