"""What a user gives a captioner, as its encoder reads it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lockdec.data.captions import Input, Modality, Part, composed, not_unicode
from lockdec.data.images import open_image, upright
from lockdec.data.sounds import ENDINGS as SOUNDS
from lockdec.data.sounds import open_sound
from lockdec.data.sources import NPY, finite_array, load_array
from lockdec.errors import DataError

GivenPart: TypeAlias = Image.Image | str | Path | bytes | NDArray[Any]
Given: TypeAlias = GivenPart | Mapping[Modality, GivenPart]
"""An input as a user has it; bytes are the content of a file, and a mapping has the parts of one example."""

T = TypeVar("T")

_WANTED = {
    "image": "pictures: one of Pillow's, an array UInt8[height width 3], or the path or the content of a file",
    "text": "texts: a string each",
    "array": "arrays: Float[states channels], the path or the content of a .npy file, or an id that its encoder knows",
    "several": "examples in several parts, each a mapping such as {'image': \"picture.png\", 'text': \"der name\"}",
}
_SOUNDS = "sounds: Float[samples] at {rate} Hz, or the path or the content of a file (WAV, FLAC, Ogg, MP3)"
_PARTS: tuple[Modality, ...] = ("image", "text", "array")


def several(names: str | Path | Collection[T]) -> Sequence[T]:
    """One name or several as a sequence: a text is a collection, too, but of its letters."""
    return list(names) if isinstance(names, Iterable) and not isinstance(names, str) else [cast(T, names)]


def as_list(given: Given | Sequence[Given]) -> list[Given]:
    """One input or several as a list; DataError if it is empty."""
    single = isinstance(given, Image.Image | str | Path | bytes | np.ndarray | Mapping)
    found = [cast(Given, given)] if single or not isinstance(given, Iterable) else list(given)
    if not found:
        raise DataError("no inputs: give one or more")
    return found


def read(given: Given, modality: Modality, rate: int | None = None, name: str = "") -> Input:
    """An input of this modality, in the form in which runs have read theirs.

    Args:
        rate: samples a second, where the inputs are sounds.
        name: what errors call the content of a file.

    Raises:
        DataError: it cannot be read, or is of another modality.
    """
    if isinstance(given, Mapping):
        return _example(given, modality, rate, name)
    if isinstance(given, str) and not given and modality != "text":
        raise DataError("'' names no file")
    if modality == "text" and isinstance(given, str):
        if problem := not_unicode(given):
            raise DataError(problem)
        return composed(given)
    if isinstance(given, bytes) and modality != "text":
        return _content(given, modality, rate, name or "an input")
    if modality == "image" and isinstance(given, str | Path):
        return open_image(Path(given), str(given))
    if modality == "image" and isinstance(given, Image.Image):
        return _picture(given)
    if modality == "image" and isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] != 3:
            raise DataError(f"a picture of shape {given.shape} and type {given.dtype}: UInt8[height width 3] is needed")
        return _picture(Image.fromarray(given))
    if modality == "array" and isinstance(given, np.ndarray):
        return finite_array(given, "an array")
    if modality == "array" and isinstance(given, str | Path):
        path = Path(given)
        if rate is not None and path.suffix.lower() in SOUNDS:
            return open_sound(path, str(given), rate)
        return load_array(path, str(given)) if path.suffix.lower() == ".npy" else composed(str(given))
    wanted = _WANTED[modality] if rate is None else _SOUNDS.format(rate=rate)
    raise DataError(f"{_shown(given)} is no input of this captioner, which reads {wanted}")


def _example(given: Mapping[Modality, GivenPart], modality: Modality, rate: int | None, name: str) -> Input:
    """The parts of an example, each read by its modality."""
    if modality != "several":
        raise DataError(f"an example in several parts is no input of this captioner, which reads "
                        f"{_WANTED[modality]}")  # fmt: skip
    found: dict[Modality, Part] = {}
    for kind, part in given.items():
        if kind not in _PARTS:
            raise DataError(f"{kind[:40]!r} names no part of an example (allowed: {', '.join(_PARTS)})")
        found[kind] = cast(Part, read(part, kind, rate, name))
    return found


def _content(content: bytes, modality: Modality, rate: int | None, name: str) -> Input:
    """What the content of a file is."""
    if modality == "image":
        return open_image(content, name)
    if rate is not None and not content.startswith(NPY):
        return open_sound(content, name, rate)
    return load_array(content, name)


def _picture(image: Image.Image) -> Image.Image:
    name = str(getattr(image, "filename", "")) or "a picture"
    try:
        return upright(image, name)
    except DataError:
        raise
    except Exception as error:  # a file that Pillow has opened is only read here, and may be damaged in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: a damaged picture ({reason})") from error


def _shown(given: object) -> str:
    return repr(given)[:40] if isinstance(given, str | Path) else f"a {type(given).__name__}"
