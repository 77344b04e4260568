"""Sources of inputs: which file an entry names, what is checked, and what a change of a file changes."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from lockdec.data.sources import ArrayFiles, FeatureIds, Texts, inside
from lockdec.errors import DataError


def saved(folder: Path, name: str, shape: tuple[int, ...], value: float = 1.0) -> Path:
    np.save(folder / name, np.full(shape, value, np.float32))
    return folder / name


def test_a_text_is_its_own_content() -> None:
    for source in (Texts(), FeatureIds()):
        assert source.read("a cat") == "a cat"
        assert source.check("a cat") == hashlib.sha256(b"a cat").hexdigest()
        assert source.stamp("a cat") is None, "nothing to remember: it is checked every time"
    assert (Texts().modality, FeatureIds().modality) == ("text", "array")


def test_an_array_is_read_as_it_was_saved_and_checked_by_its_bytes(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.npy", (2, 3), 0.5)
    source = ArrayFiles(tmp_path)
    assert np.array_equal(np.asarray(source.read("a.npy")), np.full((2, 3), 0.5, np.float32))
    assert source.check("a.npy") == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_changed_file_has_another_stamp(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.npy", (2, 3))
    source = ArrayFiles(tmp_path)
    before = source.stamp("a.npy")
    assert before == source.stamp("a.npy")
    os.utime(path, ns=(0, 0))
    assert source.stamp("a.npy") != before
    path.unlink()
    assert source.stamp("a.npy") is None


def test_arrays_of_one_set_agree_in_rank_and_channels(tmp_path: Path) -> None:
    for name, shape in (("a.npy", (2, 3)), ("b.npy", (7, 3)), ("c.npy", (2, 4)), ("d.npy", (5,))):
        saved(tmp_path, name, shape)
    source = ArrayFiles(tmp_path)
    source.check("a.npy")
    source.check("b.npy")
    with pytest.raises(DataError, match=r"c\.npy: 4 channels, but a\.npy has 3"):
        source.check("c.npy")
    with pytest.raises(DataError, match=r"d\.npy: an array of rank 1, but a\.npy has rank 2"):
        source.check("d.npy")


def test_entries_that_mean_one_file_have_one_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    name = "grün.npy"
    saved(tmp_path / "sub", name, (1, 2))
    source = ArrayFiles(tmp_path)
    entries = [unicodedata.normalize(form, f"sub{slash}{name}") for form in ("NFC", "NFD") for slash in "/\\"]
    assert len(set(entries)) == 4
    assert {source.name(entry) for entry in entries} == {f"sub/{name}"}
    assert {source.check(source.name(entry)) for entry in entries} == {source.check(f"sub/{name}")}


@pytest.mark.parametrize("entry", ["../secret.npy", "link.npy", "/etc/hostname", "sub/../../secret.npy"])
def test_nothing_outside_the_folder_is_opened(entry: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    saved(tmp_path, "secret.npy", (1, 2))
    (folder / "link.npy").symlink_to(tmp_path / "secret.npy")
    with pytest.raises(DataError, match="leads outside"):
        inside(folder, entry)
    with pytest.raises(DataError, match="leads outside"):
        ArrayFiles(folder).read(entry)
