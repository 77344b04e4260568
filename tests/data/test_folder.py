"""A user's folder: what is read, and how it is split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lockdec.data.folder import Folder
from lockdec.data.images import open_image
from lockdec.data.listed import usable_id
from lockdec.data.text import TextFile, pretraining_text
from lockdec.encoders.features import Features
from lockdec.errors import ConfigError, LockdecError
from tests.data.user_files import (
    TEXTS,
    decomposed,
    write_arrays,
    write_csv,
    write_lines,
    write_pictures,
    write_texts,
)


@pytest.mark.parametrize("reading", ["csv", "jsonl"])
def test_both_tables_say_the_same(reading: str, tmp_path: Path) -> None:
    if reading == "csv":
        rows = [("a", "A  Red hat", "a cap", "train"), ("b", "two, three", "", "val"), ("c", "z", "", "test")]
        write_csv(tmp_path, rows, ("input", "caption", "caption_2", "split"))
    else:
        write_lines(
            tmp_path,
            {"input": "a", "captions": ["A  Red hat", "a cap"], "split": "train"},
            {"input": "b", "caption": "two, three", "split": "val"},
            {"input": "c", "caption": "z", "split": "test"},
        )
    data = Folder(str(tmp_path))
    assert data.captions == (("a red hat", "a cap"), ("two, three",), ("z",))
    assert dict(data.splits) == {"train": (0,), "val": (1,), "test": (2,)}
    assert (data.inputs([1, 0]), data.modality) == (["b", "a"], "text")


def test_several_rows_of_an_input_are_its_references(tmp_path: Path) -> None:
    rows = [("a", "one"), ("b", "two"), ("a", "three"), ("a", "ONE"), ("c", "z")]
    data = Folder(str(write_texts(tmp_path, *rows)))
    assert dict(zip(data.entries, data.captions, strict=True)) == {"a": ("one", "three"), "b": ("two",), "c": ("z",)}


def test_columns_of_one_name_are_references_too(tmp_path: Path) -> None:
    rows = [("a", "one", "two"), ("b", "three", "four"), ("c", "five", "six")]
    data = Folder(str(write_texts(tmp_path, *rows, header=("Input", "caption", "caption"))))
    assert data.captions[1] == ("three", "four")


def test_a_byte_order_mark_and_line_breaks_in_a_field_are_read(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_bytes(b'\xef\xbb\xbfinput,caption\r\na,"one\r\nline"\r\n\r\nb,two\r\nc,three\r\n')
    assert Folder(str(tmp_path)).captions == (("one line",), ("two",), ("three",))


def test_a_drawn_split_has_its_shares_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    write_texts(tmp_path, *TEXTS)
    first, again, other = (Folder(str(tmp_path), split_seed=seed, val_share=0.2) for seed in (0, 0, 1))
    assert {name: len(rows) for name, rows in first.splits.items()} == {"train": 14, "val": 4, "test": 2}
    assert first.fingerprint == again.fingerprint
    assert first.splits != other.splits


def test_copies_of_an_input_under_other_names_are_never_in_two_splits(tmp_path: Path) -> None:
    rows = write_pictures(tmp_path, 8)
    copies = []
    for name, caption in rows:
        copy = name.replace(".png", "-copy.png")
        (tmp_path / copy).write_bytes((tmp_path / name).read_bytes())
        copies.append((copy, caption))
    write_csv(tmp_path, rows + copies)
    for seed in range(5):
        data = Folder(str(tmp_path), split_seed=seed, val_share=0.25, test_share=0.25)
        split = {data.entries[row]: name for name, members in data.splits.items() for row in members}
        assert all(split[name] == split[name.replace(".png", "-copy.png")] for name, _ in rows)


def test_no_held_out_caption_is_in_the_pretraining_text(tmp_path: Path) -> None:
    rows = [(f"text {number}", f"caption {number % 7}") for number in range(40)]
    data = Folder(str(write_texts(tmp_path, *rows)))
    held_out = {*data.references("val"), *data.references("test")}
    text = pretraining_text(data)
    assert set(text) == set(data.references("train")) - held_out
    assert set(data.references("train")) & held_out  # the same words stand in two splits, so leaving out did something


def test_a_limit_takes_some_of_each_split(tmp_path: Path) -> None:
    rows = [
        (f"text {number}", "x", "test" if number < 20 else "val" if number < 24 else "train") for number in range(200)
    ]
    data = Folder(str(write_texts(tmp_path, *rows, header=("input", "caption", "split"))), limit=40)
    assert {name: len(members) for name, members in data.splits.items()} == {"train": 35, "val": 4, "test": 4}
    with pytest.raises(ConfigError, match=r"data\.limit=3: at least 8"):
        Folder(str(tmp_path), limit=3)


def test_pictures_are_read_when_asked_for(tmp_path: Path) -> None:
    rows = write_pictures(tmp_path, 6)
    write_csv(tmp_path, rows)
    data = Folder(str(tmp_path))
    assert data.modality == "image"
    (picture,) = data.inputs([2])
    assert isinstance(picture, Image.Image)
    assert np.array_equal(np.asarray(picture), np.asarray(Image.open(tmp_path / rows[2][0]).convert("RGB")))
    assert data.ids[2] == rows[2][0].replace("/", "%2F")
    before = data.fingerprint
    Image.new("RGB", (9, 9)).save(tmp_path / rows[2][0])
    assert Folder(str(tmp_path)).fingerprint != before


def test_arrays_are_states_by_channels(tmp_path: Path) -> None:
    rows = write_arrays(tmp_path, 6)
    write_csv(tmp_path, rows)
    data = Folder(str(tmp_path))
    shapes = [array.shape for array in data.inputs(range(6)) if isinstance(array, np.ndarray)]
    assert (data.modality, shapes) == ("array", [(1, 6), (2, 6), (3, 6), (4, 6), (1, 6), (2, 6)])


def test_samples_may_be_as_many_as_they_are(tmp_path: Path) -> None:
    for count in (3, 5, 9):
        np.save(tmp_path / f"{count}.npy", np.arange(count))
    write_csv(tmp_path, [("3.npy", "a"), ("5.npy", "b"), ("9.npy", "c")])
    arrays = Folder(str(tmp_path)).inputs(range(3))
    assert [array.shape for array in arrays if isinstance(array, np.ndarray)] == [(3,), (5,), (9,)]


def test_ids_of_features_are_given_as_they_are(tmp_path: Path) -> None:
    data = Folder(str(write_texts(tmp_path, ("k1", "a"), ("k2", "b"), ("k3", "c"))), modality="array")
    assert (data.inputs([0, 2]), data.modality, data.ids) == (["k1", "k3"], "array", ("k1", "k2", "k3"))


def test_unchanged_files_are_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = write_pictures(tmp_path / "data", 6)
    write_csv(tmp_path / "data", rows)
    opened: list[str] = []
    real = open_image

    def noted(source: bytes, name: str) -> Image.Image:
        opened.append(name)
        return real(source, name)

    monkeypatch.setattr("lockdec.data.sources.open_image", noted)
    first = Folder(str(tmp_path / "data"), cache=str(tmp_path / "cache"))
    first.inputs(range(6))
    assert opened == [name for name, _ in rows]
    again = Folder(str(tmp_path / "data"), cache=str(tmp_path / "cache"))
    assert (len(opened), again.fingerprint) == (6, first.fingerprint)
    Image.new("RGB", (9, 9)).save(tmp_path / "data" / rows[3][0])
    assert Folder(str(tmp_path / "data"), cache=str(tmp_path / "cache")).fingerprint != first.fingerprint
    assert opened[6:] == [rows[3][0]]
    (cache,) = (tmp_path / "cache").iterdir()
    cache.write_text("{")
    assert Folder(str(tmp_path / "data"), cache=str(tmp_path / "cache")).ids == first.ids


def test_texts_and_captions_have_one_unicode_form(tmp_path: Path) -> None:
    rows = [("é", "café"), (decomposed("é"), decomposed("CAFÉ noir")), ("b", "x"), ("c", "y")]
    data = Folder(str(write_texts(tmp_path, *rows)))
    assert data.captions[0] == ("café", "café noir")
    assert data.inputs([0]) == ["é"]
    one = Folder(str(write_texts(tmp_path, *TEXTS, ("é", "ö"))))
    other = Folder(str(write_texts(tmp_path, *TEXTS, (decomposed("é"), decomposed("ö")))))
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize("read", [Folder, lambda path: TextFile(path).lines(), Features])
def test_the_home_folder_of_nobody_is_no_folder(read: Callable[[str], Any]) -> None:
    with pytest.raises(LockdecError, match="~nobody-of-this-name/x"):
        read("~nobody-of-this-name/x")


def test_impossible_shares_are_refused(tmp_path: Path) -> None:
    write_texts(tmp_path, *TEXTS)
    with pytest.raises(ConfigError, match=r"data\.val_share=0\.6 data\.test_share=0\.5"):
        Folder(str(tmp_path), val_share=0.6, test_share=0.5)


def test_ids_can_name_files_and_stay_different() -> None:
    names = ["a/b.png", "a%2Fb.png", "a\\b.png", "../x", "Äpfel.png", "x" * 300, "x" * 301, "a\0b"]
    usable = [usable_id(name) for name in names]
    assert len(set(usable)) == len(names)
    assert usable[4] == "Äpfel.png"
    assert not any(set("/\\\0") & set(name) for name in usable)
    assert all(len(name.encode()) <= 200 for name in usable)
    assert json.loads(json.dumps(usable)) == usable
