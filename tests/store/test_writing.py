"""Writing: a file is replaced completely or not at all."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from lockdec.errors import StoreError
from lockdec.store.writing import (
    PARTIAL,
    clear_partial,
    format_bytes,
    is_disk_full,
    new_folder,
    require_free_space,
    write_bytes,
    write_json,
)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_content(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes(tmp_path / "file", b"old")

    def fail(descriptor: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((StoreError, KeyboardInterrupt)) as raised:
        write_bytes(tmp_path / "file", b"new")
    assert ("did not fit; it needs 3 bytes" in str(raised.value)) == is_disk_full(error)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_json_has_no_nan_and_keeps_its_characters(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "drapeau français"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "drapeau français"}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", float("nan"))


def test_only_half_written_files_are_cleared(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("whole", f"inner/.file.7{PARTIAL}"):
        (tmp_path / name).touch()
    clear_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inner", "whole"]


def test_what_cannot_fit_is_refused_before_it_is_written(tmp_path: Path) -> None:
    require_free_space(tmp_path / "states", 1, "a cache")
    with pytest.raises(StoreError, match=r"states: a cache needs 1000000\.0 TB, and .* are free"):
        require_free_space(tmp_path / "states", 10**18, "a cache")


@pytest.mark.parametrize(("count", "text"), [(999, "999 bytes"), (1000, "1.0 kB"), (2_340_000, "2.3 MB")])
def test_sizes_are_in_powers_of_1000(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_a_new_folder_is_left_as_it_was_if_what_is_written_fails(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    def write_half(folder: Path) -> None:
        with new_folder(folder):
            (folder / "inner").mkdir()
            (folder / "inner" / "file").write_text("half")
            (folder / "link").symlink_to(tmp_path)
            raise ValueError("half way")

    for name in ("empty", "absent"):
        with pytest.raises(ValueError, match="half way"):
            write_half(tmp_path / name)
    assert [(path.name, list(path.iterdir())) for path in tmp_path.iterdir()] == [("empty", [])]
    with new_folder(tmp_path / "empty"):
        (tmp_path / "empty" / "file").write_text("whole")
    with (
        pytest.raises(StoreError, match="exists already; name a new or an empty folder"),
        new_folder(tmp_path / "empty"),
    ):
        pass
    assert (tmp_path / "empty" / "file").read_text() == "whole"
    with pytest.raises(StoreError, match=r"file/below: cannot be written"), new_folder(tmp_path / "empty/file/below"):
        pass
