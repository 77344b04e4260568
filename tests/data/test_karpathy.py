"""Karpathy's JSON beside a folder of images."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from lockdec.data.karpathy import Karpathy
from lockdec.errors import DataError
from tests.data.user_files import write_pictures

SPLITS = ("train", "restval", "val", "test")


def write(folder: Path, **changes: Any) -> tuple[str, str]:
    """Eight images in the manner of COCO: `filepath` names the folder of half of them; two captions each."""
    rows = write_pictures(folder, 8)
    images = []
    for number, (name, caption) in enumerate(rows):
        record = {"filename": Path(name).name, "split": SPLITS[number % 4], "imgid": number}
        record["sentences"] = [{"raw": f"{caption} {again}.", "tokens": [], "sentid": again} for again in range(2)]
        images.append(record | ({"filepath": "val2014"} if number < 4 else {}))
    (folder / "pictures" / "val2014").mkdir()
    for record in images[:3]:
        path = folder / "pictures" / str(record["filename"])
        path.rename(path.parent / "val2014" / path.name)
    images[5] |= changes
    (folder / "dataset.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    return str(folder / "dataset.json"), str(folder / "pictures")


def test_images_have_their_captions_and_splits(tmp_path: Path) -> None:
    data = Karpathy(*write(tmp_path))
    assert dict(data.splits) == {"train": (0, 1, 4, 5), "val": (2, 6), "test": (3, 7)}
    assert all(len(references) == 2 and references[0].endswith(" 0.") for references in data.captions)
    assert [entry.startswith("val2014/") for entry in data.entries] == [True] * 3 + [False] * 5
    assert len(data.inputs(range(8))) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filename": "gone.png"}, "image 5: 'gone.png': no such file"),
        ({"filename": "../../x.png"}, r"image 5: '../../x.png' leads outside"),
        ({"split": "dev"}, "image 5: split 'dev'"),
        ({"sentences": []}, "image 5: an empty caption"),
        ({"sentences": [{"tokens": []}]}, "image 5: filename, split and sentences with raw texts are needed"),
        ({"filename": 3}, "image 5: filename, split and sentences"),
    ],
)
def test_a_bad_image_is_named_or_left_out(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path, images = write(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        Karpathy(path, images)
    data = Karpathy(path, images, on_bad="skip")
    assert (len(data), len(data.skipped)) == (7, 1)


@pytest.mark.parametrize("content", ["{", "[]", '{"pictures": []}', '{"images": {}}'])
def test_another_json_is_refused(content: str, tmp_path: Path) -> None:
    path, images = write(tmp_path)
    Path(path).write_text(content)
    with pytest.raises(DataError, match="not Karpathy's JSON"):
        Karpathy(path, images)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.images=.*gone: no such folder"):
        Karpathy(write(tmp_path)[0], str(tmp_path / "gone"))


def test_half_a_character_makes_an_image_bad(tmp_path: Path) -> None:
    arguments = write(tmp_path, filename="half \ud83d.png")
    with pytest.raises(DataError, match=r"dataset.json image 5: 'half .ud83d.png' cannot be written in UTF-8"):
        Karpathy(*arguments)
    assert len(Karpathy(*arguments, on_bad="skip").skipped) == 1


def test_names_in_another_unicode_form_are_found_in_their_folder(tmp_path: Path) -> None:
    file, images = write(tmp_path)
    content = json.loads(Path(file).read_text())
    for place, number in (("val2014", 0), (".", 6)):
        record = content["images"][number]
        old, new = Path(images, place, record["filename"]), f"\u00e9{record['filename']}"
        decomposed = unicodedata.normalize("NFD", new)
        old.rename(old.with_name(new if number else decomposed))
        record["filename"] = decomposed if number else new
    Path(file).write_text(json.dumps(content))
    assert Karpathy(file, images).entries[0].startswith("val2014/\u00e9")
    assert len(Karpathy(file, images).inputs(range(8))) == 8
