"""The files that a table names: how they are found, and what is said of each that cannot be used."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from lockdec.data.captions import Modality
from lockdec.data.folder import Folder
from lockdec.data.listed import OnBad
from lockdec.data.sources import SoundFiles, load_array
from lockdec.errors import ConfigError, DataError
from tests.data.user_files import (
    SPLIT,
    decomposed,
    write_arrays,
    write_csv,
    write_lines,
    write_pictures,
    write_texts,
)


@pytest.mark.parametrize("in_table", [str, decomposed])
@pytest.mark.parametrize("on_disk", [str, decomposed])
def test_a_name_is_found_in_any_unicode_form(
    in_table: Callable[[str], str], on_disk: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / on_disk("été")).mkdir()
    rows = []
    for number in range(4):
        Image.new("RGB", (4, 4 + number)).save(tmp_path / on_disk("été") / on_disk(f"ö{number}.png"))
        rows.append((in_table(f"été/ö{number}.png"), in_table(f"élan {number}")))
    write_csv(tmp_path, [*rows, ("été/ö0.png", "another")])
    data = Folder(str(tmp_path))
    assert data.ids == tuple(f"été%2Fö{number}.png" for number in range(4))
    assert data.captions[0] == ("élan 0", "another")
    assert [picture.height for picture in data.inputs(range(4)) if isinstance(picture, Image.Image)] == [4, 5, 6, 7]


def test_two_names_that_differ_only_in_their_form_are_told(tmp_path: Path) -> None:
    rows = write_pictures(tmp_path, 4)
    for form in (str, decomposed):
        Image.new("RGB", (4, 4)).save(tmp_path / form("é.png"))
    write_csv(tmp_path, [*rows, (decomposed("é.png"), "x")])
    with pytest.raises(DataError, match=r"line 6: .* differ only in the Unicode form of their names; rename one"):
        Folder(str(tmp_path))


def test_paths_of_windows_are_read_and_other_letter_case_is_told(tmp_path: Path) -> None:
    rows = write_pictures(tmp_path, 4)
    write_csv(tmp_path, [(name.replace("/", "\\"), caption) for name, caption in rows])
    data = Folder(str(tmp_path))
    assert data.ids == tuple(name.replace("/", "%2F") for name, _ in rows)
    write_csv(tmp_path, [*rows, (rows[0][0].upper(), "x")])
    with pytest.raises(DataError, match=rf"line 6: .*no such file in .* \(there is '{rows[0][0]}'\)"):
        Folder(str(tmp_path))


@pytest.mark.parametrize("ending", [".jfif", ".PNG", "", ".JPEG", ".x"])
def test_pictures_are_known_by_their_ending_or_content(ending: str, tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (4, 4 + number)).save(tmp_path / f"{number}{ending}", "PNG")
    write_csv(tmp_path, [(f"{number}{ending}", "x") for number in range(3)])
    data = Folder(str(tmp_path))
    assert data.modality == "image"


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("name", ["song.mid", "clip.mp4", "page.pdf", "photo.HEIC"])
def test_a_file_of_another_kind_is_refused_by_name(name: str, there: bool, tmp_path: Path) -> None:
    rows = [(f"{number}{name}", "x") for number in range(3)]
    for entry, _ in rows if there else []:
        (tmp_path / entry).write_bytes(b"RIFF....WAVE")
    write_csv(tmp_path, rows)
    ending = Path(name).suffix
    with pytest.raises(
        DataError, match=rf"line 2: '0{name}': files that end in {ending} are not read \(pictures are: PN"
    ):
        Folder(str(tmp_path))
    assert Folder(str(tmp_path), modality="text").inputs([0]) == [f"0{name}"]
    assert Folder(str(tmp_path), modality="array").modality == "array"


def write_sounds(folder: Path, endings: Sequence[str] = (".wav",) * 3) -> list[tuple[str, str]]:
    rows = []
    for number, ending in enumerate(endings):
        tone = 0.1 * np.sin(np.arange(4_410 * (number + 1)) * 0.05 * (number + 1))
        soundfile.write(folder / f"{number}{ending}", tone, 44_100)
        rows.append((f"{number}{ending}", "x"))
    return rows


def test_sounds_are_arrays_of_samples_at_the_rate_that_is_asked_for(tmp_path: Path) -> None:
    write_csv(tmp_path, write_sounds(tmp_path, [".wav", ".flac", ".OGG"]))
    data = Folder(str(tmp_path))
    assert data.modality == "array"
    assert [len(sound) for sound in data.inputs(range(3))] == [1_600, 3_200, 4_800]  # type: ignore[arg-type]
    twice = Folder(str(tmp_path), rate=32_000)
    assert len(twice.inputs([0])[0]) == 3_200  # type: ignore[arg-type]
    assert twice.fingerprint != data.fingerprint


def test_damaged_sounds_are_bad_rows(tmp_path: Path) -> None:
    rows = write_sounds(tmp_path)
    (tmp_path / "a.wav").write_bytes(b"RIFF....WAVE")
    (tmp_path / "b.mp3").write_text("<html>not found</html>")
    soundfile.write(tmp_path / "c.wav", np.zeros(0), 16_000)
    write_csv(tmp_path, [*rows, ("a.wav", "x"), ("b.mp3", "x"), ("c.wav", "x"), ("d.wav", "x")])
    with pytest.raises(
        DataError,
        match=r"line 5: a\.wav: not a sound that can be read.*line 6: b\.mp3: not a sound.*"
        r"line 7: c\.wav: a sound without samples.*line 8: 'd\.wav': no such file",
    ):
        Folder(str(tmp_path))
    assert len(Folder(str(tmp_path), on_bad="skip")) == 3


def test_a_sound_that_was_once_let_through_is_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = write_sounds(tmp_path, [".wav", ".flac", ".ogg", ".mp3"])
    (tmp_path / "3.mp3").write_bytes((tmp_path / "3.mp3").read_bytes()[:-1_500])
    write_csv(tmp_path, rows)
    with monkeypatch.context() as before:
        before.setattr(SoundFiles, "checks", "")
        before.setattr("lockdec.data.sources.open_sound", lambda content, name, rate: np.zeros(9, np.float32))
        let_through = Folder(str(tmp_path), cache=str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"line 5: 3.mp3: cut off or damaged"):
        Folder(str(tmp_path), cache=str(tmp_path / "cache"))
    data = Folder(str(tmp_path), cache=str(tmp_path / "cache"), on_bad="skip")
    assert data.entries == let_through.entries[:3]


def test_what_differs_from_the_others_is_left_out_again_at_the_next_start(tmp_path: Path) -> None:
    """All but one of the arrays are known from the first start, and are not read again."""
    for number in range(8):
        np.save(tmp_path / f"{number}.npy", np.full((3, 7 if number == 5 else 4), number, dtype=np.float32))
    write_csv(tmp_path, [(f"{number}.npy", f"number {number}") for number in range(8)])
    first, second = (Folder(str(tmp_path), cache=str(tmp_path / "cache"), on_bad="skip") for _ in range(2))
    assert len(first) == 7
    assert second.fingerprint == first.fingerprint
    np.save(tmp_path / "0.npy", np.zeros((3, 9), dtype=np.float32))
    with pytest.raises(DataError, match=r"1\.npy: 4 channels, but 0\.npy has 9"):
        Folder(str(tmp_path), cache=str(tmp_path / "cache"))


@pytest.mark.parametrize("on_bad", ["error", "skip"])
@pytest.mark.parametrize("package", ["soundfile", "soxr"])
def test_a_missing_package_makes_no_row_bad(
    package: str, on_bad: OnBad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(tmp_path, write_sounds(tmp_path))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"^sounds are read by .*{package}.*: pip install 'lockdec\[sound\]'$"):
        Folder(str(tmp_path), on_bad=on_bad)


def test_a_sound_among_arrays_is_called_a_file_of_another_kind(tmp_path: Path) -> None:
    rows = [*write_arrays(tmp_path, 4), *write_sounds(tmp_path, [".wav"])]
    (tmp_path / "empty.npy").touch()
    write_csv(tmp_path, [*rows, ("empty.npy", "x")])
    kind = "not a .npy file of numbers"
    with pytest.raises(
        DataError, match=rf"line 6: 0.wav: {kind} \(it is a file of another kind\); line 7: empty.npy: {kind} \(No data"
    ):
        Folder(str(tmp_path))
    with pytest.raises(DataError, match=rf"^x: {kind} \(it is a file of another kind\)$"):
        load_array(tmp_path / "0.wav", "x")


def test_ids_may_look_like_sounds(tmp_path: Path) -> None:
    write_csv(tmp_path, [(f"{number}.wav", "x") for number in range(3)])
    assert Folder(str(tmp_path), modality="array").inputs([0]) == ["0.wav"]


def test_a_file_of_another_kind_among_pictures_is_a_bad_row(tmp_path: Path) -> None:
    rows = write_pictures(tmp_path, 4)
    (tmp_path / "notes.txt").write_text("no picture")
    write_csv(tmp_path, [("notes.txt", "x"), *rows])
    with pytest.raises(DataError, match=r"line 2: notes.txt: not a picture of a kind that is read"):
        Folder(str(tmp_path))
    assert len(Folder(str(tmp_path), on_bad="skip")) == 4


@pytest.mark.parametrize("modality", [None, "array"])
@pytest.mark.parametrize("other", ["x.mid", "My Track 1.m4a", "x"])
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("write", [write_sounds, write_arrays])
def test_a_file_of_another_kind_before_sounds_or_arrays_is_a_bad_row(
    modality: Modality | None, other: str, there: bool, write: Callable[..., list[tuple[str, str]]], tmp_path: Path
) -> None:
    rows = [*write(tmp_path), *([("0.wav", "y")] * 7 if write is write_sounds else [])]
    if there:
        (tmp_path / other).write_bytes(b"MThd")
    write_csv(tmp_path, [(other, "x"), *rows])
    with pytest.raises(DataError, match=rf"line 2: '?{other}'?: no"):
        Folder(str(tmp_path), modality=modality)
    data = Folder(str(tmp_path), modality=modality, on_bad="skip")
    assert len(data) == len({name for name, _ in rows})
    assert all(isinstance(given, np.ndarray) for given in data.inputs(range(len(data))))


def test_sounds_in_the_form_of_windows_are_no_ids(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    names = [f"sub\\{name}" for name, _ in write_sounds(tmp_path / "sub")]
    write_csv(tmp_path, [(name, "x") for name in names])
    for modality in (None, "array"):
        assert isinstance(Folder(str(tmp_path), modality=modality).inputs([0])[0], np.ndarray)


@pytest.mark.parametrize("ending", ["aac", "AAC"])
def test_names_with_blanks_are_refused_and_sentences_are_not(ending: str, tmp_path: Path) -> None:
    write_csv(tmp_path, [("Untitled", "x"), *((f"My Track {number}.{ending}", "x") for number in range(20))])
    with pytest.raises(DataError, match=rf"line 3: 'My Track 0.{ending}': files that end in .{ending} are not read .*"
                       "data.modality=text"):  # fmt: skip
        Folder(str(tmp_path))
    assert Folder(str(tmp_path), modality="text").modality == "text"
    said = ["we leave at 5.30", "made in the U.S.A", "it runs on node.js", "well...so", "Ask Dr. No"]
    write_csv(tmp_path, [(f"{number}: {text}", "x") for number in range(4) for text in said])
    assert Folder(str(tmp_path)).modality == "text"


def test_a_file_too_large_for_a_picture_is_not_read(tmp_path: Path) -> None:
    rows = write_pictures(tmp_path, 4)
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(1 << 30)
    write_csv(tmp_path, [*rows, ("large.png", "x")])
    with pytest.raises(DataError, match=r"line 6: large.png: 1,024 MiB; files of at most 512 MiB are read"):
        Folder(str(tmp_path))


def missing(folder: Path) -> None:
    (folder / "pictures" / "bad.png").unlink()


def unreadable(folder: Path) -> None:
    (folder / "pictures" / "bad.png").write_bytes(b"no picture")


def truncated(folder: Path) -> None:
    path = folder / "pictures" / "bad.png"
    path.write_bytes(path.read_bytes()[:200])


def a_folder(folder: Path) -> None:
    missing(folder)
    (folder / "pictures" / "bad.png").mkdir()


def a_link_outside(folder: Path) -> None:
    missing(folder)
    (folder.parent / "secret.png").write_bytes((folder / "pictures" / "good.png").read_bytes())
    (folder / "pictures" / "bad.png").symlink_to(folder.parent / "secret.png")


def a_pipe(folder: Path) -> None:
    missing(folder)
    os.mkfifo(folder / "pictures" / "bad.png")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing, "'pictures/bad.png': no such file in"),
        (unreadable, "pictures/bad.png: not a picture of a kind that is read"),
        (truncated, "pictures/bad.png: a damaged picture"),
        (a_folder, "no such file in"),
        (a_link_outside, "'pictures/bad.png' leads outside"),
        (a_pipe, "no such file in"),
    ],
)
def test_a_bad_picture_is_named_or_left_out(spoil: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    rows = write_pictures(folder, 6)
    for name in ("good", "bad"):
        Image.effect_noise((64, 64), 50).save(folder / "pictures" / f"{name}.png")
    write_csv(folder, [*rows, ("pictures/bad.png", "bad"), ("pictures/good.png", "good")])
    spoil(folder)
    with pytest.raises(DataError, match=rf"captions.csv line 8: .*{message}"):
        Folder(str(folder))
    data = Folder(str(folder), on_bad="skip")
    assert (len(data), len(data.skipped)) == (7, 1)
    assert "pictures/bad.png" not in data.entries


@pytest.mark.parametrize(
    "entry", ["../secret.png", "/etc/hostname", "pictures/../../secret.png", "x\0.png", "a" * 5000]
)
def test_no_entry_leads_outside_the_folder(entry: str, tmp_path: Path) -> None:
    rows = write_pictures(tmp_path / "data", 4)
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    records = [{"input": name, "caption": caption} for name, caption in [*rows, (entry, "x")]]
    write_lines(tmp_path / "data", *records)
    with pytest.raises(DataError, match=r"captions.jsonl line 5: .*(leads outside|cannot name a file|no such file)"):
        Folder(str(tmp_path / "data"), modality="image")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 6)), r"9.npy: an array of shape \(2, 3, 6\); states by channels are needed"),
        (np.zeros(()), r"shape \(\)"),
        (np.zeros((0, 6)), r"shape \(0, 6\)"),
        (np.zeros((2, 5)), "5 channels, but 0.npy has 6"),
        (np.zeros(6), "an array of rank 1, but 0.npy has rank 2"),
        (np.array([[0, 1, 2, np.nan, 4, 5]]), r"nan at \[0, 3\]: every number has to be finite"),
        (np.array([[0, 1, 2, 3, 4, 1e39]]), r"1e.39 at \[0, 5\]"),
        (np.array([["a"] * 6]), "not one array of numbers"),
        (np.array([[None] * 6], dtype=object), "not a .npy file of numbers"),
    ],
)
def test_a_bad_array_is_named(array: Any, message: str, tmp_path: Path) -> None:
    rows = write_arrays(tmp_path, 4)
    np.save(tmp_path / "9.npy", array, allow_pickle=True)
    write_csv(tmp_path, [*rows, ("9.npy", "bad")])
    with pytest.raises(DataError, match=rf"captions.csv line 6: .*{message}"):
        Folder(str(tmp_path))
    assert len(Folder(str(tmp_path), on_bad="skip")) == 4


def test_a_folder_that_is_not_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path=.*nowhere: no such folder"):
        Folder(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"one of captions.csv and captions.jsonl is needed, but none is there"):
        Folder(str(tmp_path))
    write_lines(write_texts(tmp_path, *SPLIT), {"input": "a", "caption": "b"})
    with pytest.raises(DataError, match="but both of them are there"):
        Folder(str(tmp_path))
