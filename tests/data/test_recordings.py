"""Recordings out of a Debian package that the tests make: what is read, what is refused, and the split."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lockdec.data import recordings
from lockdec.data.folder import Folder
from lockdec.data.recordings import Recording, read_package, split
from lockdec.errors import DataError


def sound(pitch: float, ending: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(4000) * pitch).astype(np.float32), 8000, format=ending)
    return file.getvalue()


def package(path: Path, files: Mapping[str, bytes], folder: str = "usr/share/ktuberling/sounds") -> Path:
    """A Debian package with these files: an ar archive of the version, the control files and the data."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    written = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", data.getvalue())):
        written += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        written += b"\n" * (len(content) % 2)
    path.write_bytes(written)
    return path


def theme(code: str, **files: str) -> bytes:
    sounds = "".join(f'<sound name="{name}" file="{code}/{file}" />' for name, file in files.items())
    return f'<language code="{code}">{sounds}</language>'.encode()


WORDS = {
    "da.soundtheme": theme("da", hat="hat.wav", tv_fire_engine="brand.ogg", gone="gone.wav", pizzeria_olive2="o.wav"),
    "da/hat.wav": sound(0.1),
    "da/brand.ogg": sound(0.2, "OGG"),
    "da/o.wav": sound(0.3),
    "sr@latin.soundtheme": theme("sr@latin", hat="kapa.wav"),
    "sr@latin/kapa.wav": sound(0.4),
    "sr.soundtheme": theme("sr", hat="kapa.wav"),
    "sr/kapa.wav": sound(0.4),
    "de.soundtheme": b'<sound name="../../escaped" file="de/out.wav" />',
    "de/out.wav": sound(0.6),
    "xx.soundtheme": theme("xx", hat="hat.wav"),
    "xx/hat.wav": sound(0.5),
}


def test_recordings_are_captioned_by_word_and_language_and_copies_are_one(tmp_path: Path) -> None:
    found = read_package(package(tmp_path / "words.deb", WORDS))
    assert {each.name: each.caption for each in found} == {
        "da-hat.wav": "hat in danish",
        "da-pizzeria_olive2.wav": "olive in danish",
        "da-tv_fire_engine.ogg": "fire engine in danish",
        "sr-hat.wav": "hat in serbian",
    }
    assert found[0].content == WORDS["da/hat.wav"]


def test_held_out_combinations_are_new_and_their_parts_are_known() -> None:
    words = [f"word {number}" for number in range(30)]
    several = [Recording(f"{language}-{word}", word, language, b"") for language in "abcdef" for word in words]
    several += [Recording("twice", "word 0", "a", b""), Recording("rare", "rare", "a", b"")]
    splits = split(several, seed=1)
    assert splits == split(several, seed=1) != split(several, seed=2)
    assert [splits.count(name) for name in ("val", "test")] == [18, 18]
    known = {
        name: [each for each, part in zip(several, splits, strict=True) if (part == "train") is name]
        for name in (True, False)
    }
    captions = {each.caption for each in known[True]}
    for each in known[False]:
        assert each.caption not in captions
        assert each.word in {other.word for other in known[True]}
        assert each.language in {other.language for other in known[True]}
    assert splits[several.index(several[-1])] == "train", "its word is said once"


def test_the_command_writes_a_folder_that_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = {}
    for code in ("da", "de", "fr"):
        names = {f"word{chr(97 + number)}": f"{number}.wav" for number in range(8)}
        made[f"{code}.soundtheme"] = theme(code, **names)
        made |= {f"{code}/{number}.wav": sound(0.1 + number / 50 + len(made) / 999) for number in range(8)}
    deb = package(tmp_path / "words.deb", made)
    recordings.main([str(deb), str(tmp_path / "words")])
    assert "24 recordings of 8 words in 3 languages" in capsys.readouterr().out
    folder = Folder(str(tmp_path / "words"))
    assert {name: len(rows) for name, rows in folder.splits.items()} == {"train": 20, "val": 2, "test": 2}
    assert folder.modality == "array"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"nothing", "does not begin as one"),
        (b"!<arch>\n", "it has no data.tar"),
        (b"!<arch>\n" + b"data.tar.xz     " + b"0" * 32 + b"4         `\nodd!", "not a Debian package"),
        (b"!<arch>\n" + b"data.tar.xz     " + b"0" * 32 + b"many      `\nodd!", "not a Debian package"),
        (b"!<arch>\n" + b"data.tar.xz     " + b"0" * 32 + b"-1        `\nodd!", "not a Debian package"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "other.deb").write_bytes(content)
    with pytest.raises(DataError, match=problem):
        read_package(tmp_path / "other.deb")


def test_another_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"it has to be Debian's package ktuberling-data"):
        read_package(package(tmp_path / "other.deb", WORDS, folder="usr/share/other"))
    with pytest.raises(SystemExit, match=r"lockdec: .*gone\.deb: not a Debian package that can be read"):
        recordings.main([str(tmp_path / "gone.deb"), str(tmp_path)])
