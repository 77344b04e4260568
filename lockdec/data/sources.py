"""The inputs that rows of a data file name: finds, checks and reads them. Needs no torch."""

from __future__ import annotations

import hashlib
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from lockdec.data.captions import Input, Modality, composed
from lockdec.data.images import LARGEST, DecodedPictures, open_image
from lockdec.data.sounds import LARGEST as LARGEST_SOUND
from lockdec.data.sounds import open_sound
from lockdec.errors import DataError
from lockdec.store.reading import opened

NPY = b"\x93NUMPY"  # how a .npy file begins


class InputSource(ABC):
    """Turns the entries of an `input` column into inputs.

    Attributes:
        modality: of the inputs.
        version: of the code that turns entries into inputs; part of their fingerprint.
        checks: of the code that checks them, where it refuses inputs that it once let through; in no fingerprint.
        place: where the entries are looked up, such as a folder; None if an entry is the input itself.
    """

    modality: Modality
    version: str = "1"
    checks: str = ""
    place: str | None = None

    def name(self, entry: str) -> str:
        """The one form of an entry that may be written in several ways; entries of one form are one input.

        Raises:
            DataError: it is not clear which input is meant.
        """
        return composed(entry)

    @abstractmethod
    def check(self, entry: str) -> str:
        """The sha256 (hex) of the input, after it has been read and checked completely.

        Raises:
            DataError: it cannot be used; the error says what is wrong and what would be right.
        """

    @abstractmethod
    def read(self, entry: str) -> Input:
        """The input.

        Raises:
            DataError: it can no longer be used.
        """

    def stamp(self, entry: str) -> list[int] | None:
        """Numbers that change if the entry has to be checked again; None to check it every time."""
        return None

    def require_alike(self, entry: str) -> None:
        """Check what an entry has to have in common with the others, where all else of it was checked before.

        Raises:
            DataError: it differs from the first one.
        """
        return


class Texts(InputSource):
    """Texts: the entry itself is the input."""

    modality: Modality = "text"

    def check(self, entry: str) -> str:
        return hashlib.sha256(entry.encode()).hexdigest()

    def read(self, entry: str) -> Input:
        return entry


class FeatureIds(Texts):
    """Ids of precomputed states, which the encoder `features` looks up."""

    modality: Modality = "array"


class Files(InputSource):
    """Files in one folder; nothing outside the folder is ever opened.

    An entry is the path of a file within the folder. If there is no such file, it may be meant in another Unicode form
    (macOS and Linux write accents differently) or with the backslashes of Windows.
    """

    largest: int | None = None  # bytes of a file

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, str(folder.resolve())
        self._names: dict[tuple[str, Callable[[str], str]], dict[str, str]] = {}

    def name(self, entry: str) -> str:
        if entry.isascii() and "\\" not in entry:
            return entry
        exact, usual = (os.path.isfile(self.folder / form) for form in (entry, composed(entry)))
        if exact and usual and composed(entry) != entry:
            raise DataError(f"{entry!r}: two files in {self.folder} differ only in the Unicode form of their names; "
                            "rename one")  # fmt: skip
        return composed(entry if exact or usual else entry.replace("\\", "/"))

    def path(self, entry: str) -> Path:
        """The file that an entry names.

        Raises:
            DataError: it does not exist or is outside the folder.
        """
        try:
            return inside(self.folder, entry)
        except DataError as error:
            if found := self._written(entry, composed):
                return inside(self.folder, found)
            similar = self._written(entry, _caseless)
            raise DataError(f"{error}{f' (there is {similar!r})' if similar else ''}") from error

    def stamp(self, entry: str) -> list[int] | None:
        try:
            status = self.path(entry).stat()
        except (DataError, OSError):
            return None
        return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]

    def check(self, entry: str) -> str:
        content = self.content(entry)
        self.decoded(content, entry)
        return hashlib.sha256(content).hexdigest()

    def read(self, entry: str) -> Input:
        return self.decoded(self.content(entry), entry)

    def content(self, entry: str) -> bytes:
        """The bytes of the file that an entry names.

        Raises:
            DataError: it cannot be read, or is too large.
        """
        try:
            path = self.path(entry)
            size = path.stat().st_size
            if self.largest is not None and size > self.largest:
                raise DataError(f"{entry}: {size >> 20:,} MiB; files of at most {self.largest >> 20:,} MiB are read")
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{entry}: cannot be read ({error.strerror})") from error

    @abstractmethod
    def decoded(self, content: bytes, entry: str) -> Input:
        """The input in the bytes of a file.

        Raises:
            DataError: they cannot be used.
        """

    def _written(self, entry: str, form: Callable[[str], str]) -> str | None:
        """The path whose parts are those of `entry` if both are compared in this form."""
        place = Path()
        for part in Path(entry).parts:
            folder = str(self.folder / place)
            if (folder, form) not in self._names:
                self._names[folder, form] = _listing(folder, form)
            name = self._names[folder, form].get(form(part))
            if name is None:
                return None
            place /= name
        return str(place)


def _listing(folder: str, form: Callable[[str], str]) -> dict[str, str]:
    try:
        return {form(name): name for name in sorted(os.listdir(folder))}
    except OSError:
        return {}


def _caseless(name: str) -> str:
    return composed(name).casefold()


class ImageFiles(Files):
    """Pictures; see `open_image`."""

    modality: Modality = "image"
    version: str = f"1, pillow {PIL.__version__}"
    largest = LARGEST

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._decoded = DecodedPictures()

    def check(self, entry: str) -> str:
        content = self.content(entry)
        self._decoded.keep(entry, self.decoded(content, entry))
        return hashlib.sha256(content).hexdigest()

    def read(self, entry: str) -> Input:
        return self._decoded.get(entry) or self.decoded(self.content(entry), entry)

    def decoded(self, content: bytes, entry: str) -> Image.Image:
        return open_image(content, entry)


class SoundFiles(Files):
    """Sounds; see `open_sound`.

    Args:
        rate: samples a second of the inputs.
    """

    modality: Modality = "array"
    checks = "2"
    largest = LARGEST_SOUND

    def __init__(self, folder: Path, rate: int) -> None:
        super().__init__(folder)
        self.rate, self.version = rate, f"1, {rate} Hz"

    def decoded(self, content: bytes, entry: str) -> NDArray[np.float32]:
        return open_sound(content, entry, self.rate)


class ArrayFiles(Files):
    """`.npy` files of the same rank: Float[s d], s states of d channels, with the same d in all files; or Float[n], a
    single state or audio samples.
    """

    modality: Modality = "array"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._first: tuple[str, tuple[int, ...]] | None = None

    def decoded(self, content: bytes, entry: str) -> Input:
        array = load_array(content, entry)
        self._require_shape(entry, array.shape)
        return array

    def require_alike(self, entry: str) -> None:
        try:
            with opened(self.path(entry)) as file:
                major, _ = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                shape, _, _ = read(file)
        except (OSError, ValueError) as error:
            raise DataError(f"{entry}: cannot be read ({' '.join(str(error).split())})") from error
        self._require_shape(entry, shape)

    def _require_shape(self, entry: str, shape: tuple[int, ...]) -> None:
        name, first = self._first = self._first or (entry, shape)
        if len(shape) != len(first):
            raise DataError(f"{entry}: an array of rank {len(shape)}, but {name} has rank {len(first)}")
        if shape[1:] != first[1:]:
            raise DataError(f"{entry}: {shape[1]} channels, but {name} has {first[1]}")


def _beginning(path: Path) -> bytes:
    try:
        with opened(path) as file:
            return file.read(len(NPY))
    except OSError:
        return b""


def load_array(source: Path | bytes, name: str) -> NDArray[np.float32]:
    """The array in a `.npy` file, in float32.

    Args:
        source: the file, or its content.
        name: its name in errors.

    Raises:
        DataError: the file cannot be read, or is not an array of finite numbers of rank 1 or 2.
    """
    try:
        with opened(source) if isinstance(source, Path) else io.BytesIO(source) as file:
            array = np.load(file, allow_pickle=False)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # numpy parses headers as Python literals, which can fail in many ways
        content = _beginning(source) if isinstance(source, Path) else source
        reason = " ".join(str(error).split())
        if content and not content.startswith(NPY):  # numpy takes all that is no array for pickled objects
            reason = "it is a file of another kind"
        raise DataError(f"{name}: not a .npy file of numbers ({reason})") from error
    return finite_array(array, name)


def finite_array(array: object, name: str) -> NDArray[np.float32]:
    """An array of rank 1 or 2 in float32.

    Raises:
        DataError: it is not an array of finite numbers of rank 1 or 2.
    """
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise DataError(f"{name}: not one array of numbers")
    if array.ndim not in (1, 2) or not array.size:
        raise DataError(f"{name}: an array of shape {array.shape}; states by channels are needed (rank 2), or one "
                        "state or samples (rank 1)")  # fmt: skip
    with np.errstate(over="ignore"):
        numbers: NDArray[np.float32] = array.astype(np.float32)
    if not np.isfinite(numbers).all():
        place = tuple(int(index[0]) for index in np.nonzero(~np.isfinite(numbers)))
        raise DataError(f"{name}: {array[place]} at {list(place)}: every number has to be finite")
    return numbers


def inside(folder: Path, entry: str) -> Path:
    """The file that an entry names, with all links resolved.

    Raises:
        DataError: the folder has no such file, or the entry points outside it.
    """
    try:
        root = os.path.realpath(folder)  # as text, since this is done for every input
        path = os.path.realpath(os.path.join(root, entry))
        if not path.startswith(os.path.join(root, "")):
            raise DataError(f"{entry!r} leads outside {folder}: name a file in it")
        if os.path.isfile(path):
            return Path(path)
    except (OSError, ValueError) as error:  # a null byte, a lone surrogate
        raise DataError(f"{entry!r} cannot name a file in {folder}") from error
    raise DataError(f"{entry!r}: no such file in {folder}")
