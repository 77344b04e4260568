"""Data sets of the `datasets` package that a test has saved to disk."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from PIL import Image

from lockdec.data.huggingface import HuggingFaceDataset
from lockdec.errors import ConfigError, DataError
from tests.data.user_files import write_pictures


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rows in three splits, with columns of every kind."""
    folder = tmp_path_factory.mktemp("huggingface")
    rows = write_pictures(folder, 12)
    columns = {
        "image": [Image.open(folder / name) for name, _ in rows],
        "caption": [caption for _, caption in rows],
        "captions": [[caption, "something else"] for _, caption in rows],
        "text": [f"text {number}" for number in range(12)],
        "vector": [np.full(4, number, np.float32) for number in range(12)],
        "grid": [np.full((3, 4), number, np.float32) for number in range(12)],
        "number": list(range(12)),
        "hollow": [None if number == 5 else f"x {number}" for number in range(12)],
    }
    features = datasets.Features(
        image=datasets.Image(),
        caption=datasets.Value("string"),
        captions=datasets.List(datasets.Value("string")),
        text=datasets.Value("string"),
        vector=datasets.List(datasets.Value("float32")),
        grid=datasets.Array2D((3, 4), "float32"),
        number=datasets.Value("int64"),
        hollow=datasets.Value("string"),
    )
    table = datasets.Dataset.from_dict(columns, features=features)
    parts = {"train": table.select(range(8)), "dev": table.select([8, 9]), "test": table.select([10, 11])}
    datasets.DatasetDict(parts).save_to_disk(folder / "saved")
    table.save_to_disk(folder / "single")
    return folder


OWN = {"train": "train", "val": "dev", "test": "test"}


def opened(saved: Path, **arguments: Any) -> HuggingFaceDataset:
    return HuggingFaceDataset(**{"path": str(saved / "saved"), "splits": OWN} | arguments)


@pytest.mark.parametrize(("caption", "references"), [("caption", 1), ("captions", 2), (["captions", "text"], 3)])
def test_captions_come_from_the_columns_that_are_named(saved: Path, caption: Any, references: int) -> None:
    data = opened(saved, caption=caption)
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 8, "val": 2, "test": 2}
    assert all(len(several) == references for several in data.captions)
    assert data.ids[8] == "val-0"


def test_pictures_are_those_that_were_saved(saved: Path) -> None:
    data = opened(saved)
    picture = data.inputs([9])[0]
    assert isinstance(picture, Image.Image)
    original = sorted((saved / "pictures").glob("*.png"))
    assert any(np.array_equal(np.asarray(picture), np.asarray(Image.open(path).convert("RGB"))) for path in original)
    assert data.modality == "image"


def test_texts_and_arrays_are_inputs_too(saved: Path) -> None:
    texts = opened(saved, input="text")
    assert (texts.modality, texts.inputs([0, 11])) == ("text", ["text 0", "text 11"])
    for column, shape in (("vector", (4,)), ("grid", (3, 4))):
        data = opened(saved, input=column)
        array = data.inputs([7])[0]
        assert isinstance(array, np.ndarray)
        assert (data.modality, array.shape, str(array.dtype)) == ("array", shape, "float32")
        assert (array == 7).all()


def test_splits_are_drawn_where_none_are_named(saved: Path) -> None:
    for path, total in (("saved", 8), ("single", 12)):
        data = opened(saved, path=str(saved / path), splits=None, val_share=0.2, test_share=0.2)
        assert len(data) == total
        assert all(data.splits.values())


def test_copies_of_a_text_are_never_in_two_splits(tmp_path: Path) -> None:
    texts = [f"word {number}" for number in range(30)]
    twice = datasets.Dataset.from_dict({"text": [*texts, *map(str.upper, texts)], "caption": texts * 2})
    twice.save_to_disk(tmp_path / "twice")
    for seed in range(3):
        data = HuggingFaceDataset(path=str(tmp_path / "twice"), input="text", split_seed=seed)
        split = {str(text): name for name, rows in data.splits.items() for text in data.inputs(rows)}
        assert all(split[text] == split[text.upper()] for text in texts)
    parts = {"train": twice.select(range(30)), "dev": twice.select([30]), "test": twice.select([31, 32])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "own")
    with pytest.raises(DataError, match=r"val row 0: the same input as in train row 0, but in split val and not train"):
        HuggingFaceDataset(path=str(tmp_path / "own"), input="text", splits=OWN)
    assert len(HuggingFaceDataset(path=str(tmp_path / "own"), input="text", splits=OWN, case="keep")) == 33


def test_what_is_known_of_a_saved_set_is_kept(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(saved, cache=str(tmp_path))
    monkeypatch.setattr("lockdec.data.huggingface.open_image", lambda *_: pytest.fail("looked at again"))
    assert opened(saved, cache=str(tmp_path)).fingerprint == first.fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input": "picture"}, r"data\.input=picture: .* has no such column \(there are: image, caption,"),
        ({"caption": "name"}, r"data\.caption=name: .* has no such column"),
        ({"input": "number"}, r"data\.input=number: a column of images, texts or arrays is needed"),
        ({"splits": {"train": "train", "val": "val", "test": "test"}}, r"data\.splits\.val=val: .* no such split"),
        (
            {"splits": OWN | {"val": "train"}},
            r"data\.splits=.*: name three different ones; what is held out has to be new",
        ),
        ({"splits": {"train": "train"}}, r"data\.splits=.*: a name for each of train, val, test"),
    ],
)
def test_a_column_or_split_that_is_not_there_is_named(saved: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        opened(saved, **arguments)


def test_an_empty_cell_is_named_or_left_out(saved: Path) -> None:
    for arguments in ({"caption": "hollow"}, {"input": "hollow"}):
        with pytest.raises(DataError, match=r"train row 5: .*data\.on_bad=skip"):
            opened(saved, **arguments)
        assert len(opened(saved, **arguments, on_bad="skip").skipped) == 1


def test_an_image_that_is_only_named_has_to_lie_beside_the_tables(saved: Path, tmp_path: Path) -> None:
    outside = str(next((saved / "pictures").glob("*.png")).resolve())
    cells = datasets.Features(image={"bytes": datasets.Value("binary"), "path": datasets.Value("string")})
    rows = {"image": [{"bytes": None, "path": outside}] * 3}
    table = datasets.Dataset.from_dict(rows, features=cells).add_column("caption", ["a", "b", "c"])
    table.save_to_disk(tmp_path / "named")
    # As a column of images, saving would have embedded them.
    about = tmp_path / "named" / "dataset_info.json"
    said = json.loads(about.read_text())
    said["features"]["image"] = {"_type": "Image"}
    about.write_text(json.dumps(said))
    with pytest.raises(DataError, match=r"its image is only named .* and lies outside the data set; embed the images"):
        HuggingFaceDataset(str(tmp_path / "named"))


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder that save_to_disk of datasets wrote"):
        HuggingFaceDataset(str(tmp_path))


def test_an_id_without_a_network_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = r"^data\.path=nobody/nothing-here: neither a folder here nor a data set that can be fetched .*\)$"
    with pytest.raises(DataError, match=message):
        HuggingFaceDataset("nobody/nothing-here")


def test_texts_that_are_not_utf_8_are_bad_rows(tmp_path: Path) -> None:
    """Arrow does not check what its files say is UTF-8."""
    texts = [f"text {number}".encode() for number in range(8)]
    texts[5] = b"caf\xe9"
    column = pa.array(texts).cast(pa.binary())
    column = pa.Array.from_buffers(pa.string(), len(texts), column.buffers())
    other = pa.array([f"text {number}" for number in range(8)])
    schema = datasets.Features({"text": datasets.Value("string"), "caption": datasets.Value("string")})
    for name, columns in (("input", [column, other]), ("caption", [other, column])):
        table = pa.Table.from_arrays(columns, names=["text", "caption"])
        datasets.Dataset(table, info=datasets.DatasetInfo(features=schema)).save_to_disk(tmp_path / name)
        with pytest.raises(DataError, match=r"train row 5: .*a text that is not UTF-8"):
            HuggingFaceDataset(str(tmp_path / name), input="text")
        data = HuggingFaceDataset(str(tmp_path / name), input="text", on_bad="skip")
        assert (len(data), len(data.skipped)) == (7, 1)


def test_texts_and_captions_have_one_unicode_form(tmp_path: Path) -> None:
    names = [unicodedata.normalize("NFD", f"caf\u00e9 {number}") for number in range(4)]
    datasets.Dataset.from_dict({"text": names, "caption": names}).save_to_disk(tmp_path)
    data = HuggingFaceDataset(str(tmp_path), input="text")
    assert data.inputs([3]) == list(data.captions[3]) == ["caf\u00e9 3"]
