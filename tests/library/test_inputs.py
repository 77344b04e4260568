"""What a user gives, in any of its forms, is what runs have read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from lockdec.data.captions import Modality
from lockdec.errors import DataError
from lockdec.library.inputs import Given, as_list, read


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.linear_gradient("L").resize((30, 20)).convert("RGB").save(tmp_path / "x.png")
    return tmp_path / "x.png"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "x.wav", 0.5 * np.sin(np.arange(8_000) / 8), 8_000)
    return tmp_path / "x.wav"


def test_a_picture_is_the_same_as_a_path_its_content_or_its_pixels(picture: Path) -> None:
    opened = Image.open(picture)
    forms: list[Given] = [picture, str(picture), picture.read_bytes(), opened, np.asarray(opened)]
    pictures = [read(form, "image") for form in forms]
    assert {(one.mode, one.tobytes()) for one in pictures if isinstance(one, Image.Image)} == {
        ("RGB", opened.tobytes())
    }
    assert len(pictures) == 5


def test_a_sound_is_brought_to_the_rate_of_its_encoder(sound: Path) -> None:
    first, second = read(sound, "array", 16_000), read(sound.read_bytes(), "array", 16_000)
    again = read(npy(first), "array", 16_000)
    assert isinstance(first, np.ndarray)
    assert len(first) == pytest.approx(16_000, abs=2)
    np.testing.assert_array_equal(np.asarray(second), first)
    np.testing.assert_array_equal(np.asarray(again), first)  # samples in a .npy file are taken as they are


def test_without_a_rate_a_name_is_an_id(sound: Path) -> None:
    assert read("piece.wav", "array") == "piece.wav"
    np.testing.assert_array_equal(np.asarray(read(npy(np.eye(2)), "array")), np.eye(2))


@pytest.mark.parametrize(
    ("given", "modality", "rate", "problem"),
    [
        (b"x", "image", None, "here: not a picture of a kind that is read"),
        (b"x", "array", None, "here: not a .npy file of numbers"),
        (b"x", "array", 16_000, "here: not a sound that can be read"),
        (b"x", "text", None, "a bytes is no input of this captioner, which reads texts"),
        (
            Image.new("RGB", (2, 2)),
            "array",
            8_000,
            r"a Image is no input of .*, which reads sounds: Float\[samples\] at 8000 Hz",
        ),
        ("n" * 300 + ".png", "image", None, r"n{300}\.png: cannot be read \(File name too long\)"),
        ("gone.wav", "array", 16_000, r"gone\.wav: cannot be read \(No such file or directory\)"),
    ],
)
def test_what_cannot_be_read_is_named(given: Any, modality: Modality, rate: int | None, problem: str) -> None:
    with pytest.raises(DataError, match=f"^{problem}"):
        read(given, modality, rate, "here")


def test_the_content_of_a_file_is_one_input(picture: Path) -> None:
    assert as_list(picture.read_bytes()) == [picture.read_bytes()]
