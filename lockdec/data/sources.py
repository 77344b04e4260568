"""The inputs that rows of a data file name: finds, checks and reads them. Needs no torch."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from lockdec.data.captions import Input, Modality
from lockdec.data.images import open_image
from lockdec.errors import DataError


class InputSource(ABC):
    """Turns the entries of an `input` column into inputs.

    Attributes:
        modality: of the inputs.
        version: of the code that turns entries into inputs; part of their fingerprint.
        place: where the entries are looked up, such as a folder; None if an entry is the input itself.
    """

    modality: Modality
    version: str = "1"
    place: str | None = None

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
    """Files in one folder; nothing outside the folder is ever opened."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, str(folder.resolve())

    def path(self, entry: str) -> Path:
        """The file that an entry names.

        Raises:
            DataError: it does not exist or is outside the folder.
        """
        return inside(self.folder, entry)

    def stamp(self, entry: str) -> list[int] | None:
        try:
            status = self.path(entry).stat()
        except (DataError, OSError):
            return None
        return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]

    def check(self, entry: str) -> str:
        self.read(entry)
        with self.path(entry).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class ImageFiles(Files):
    """Pictures; see `open_image`."""

    modality: Modality = "image"
    version: str = f"1, pillow {PIL.__version__}"

    def read(self, entry: str) -> Input:
        return open_image(self.path(entry), entry)


class ArrayFiles(Files):
    """`.npy` files of the same rank: Float[s d], s states of d channels, with the same d in all files; or Float[n], a
    single state or audio samples.
    """

    modality: Modality = "array"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._first: tuple[str, tuple[int, ...]] | None = None

    def read(self, entry: str) -> Input:
        array = load_array(self.path(entry), entry)
        name, shape = self._first = self._first or (entry, array.shape)
        if array.ndim != len(shape):
            raise DataError(f"{entry}: an array of rank {array.ndim}, but {name} has rank {len(shape)}")
        if array.shape[1:] != shape[1:]:
            raise DataError(f"{entry}: {array.shape[1]} channels, but {name} has {shape[1]}")
        return array


def load_array(path: Path, name: str) -> NDArray[np.float32]:
    """The array in a `.npy` file, in float32.

    Raises:
        DataError: the file cannot be read, or is not an array of finite numbers of rank 1 or 2.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise DataError(f"{name}: cannot be read ({error.strerror})") from error
    except Exception as error:  # numpy parses headers as Python literals, which can fail in many ways
        raise DataError(f"{name}: not a .npy file of numbers ({' '.join(str(error).split())})") from error
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
        root = folder.resolve()
        path = (root / entry).resolve()
        if not path.is_relative_to(root):
            raise DataError(f"{entry!r} leads outside {folder}: name a file in it")
        if path.is_file():
            return path
    except (OSError, ValueError, RuntimeError) as error:  # a name that is too long, a null byte, a loop of links
        raise DataError(f"{entry!r} cannot name a file in {folder}") from error
    raise DataError(f"{entry!r}: no such file in {folder}")
