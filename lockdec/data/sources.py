"""The inputs that rows of a data file name: where each lies, whether it can be used, how it is read. Needs no torch."""

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
        version: how entries become inputs; part of what identifies the inputs.
        place: what the entries are names in, such as a folder; None where they stand for themselves.
    """

    modality: Modality
    version: str = "1"
    place: str | None = None

    @abstractmethod
    def check(self, entry: str) -> str:
        """The sha256 (hex) of what the entry stands for, after a full look at it.

        Raises:
            DataError: it cannot be used; says what is wrong and what is right.
        """

    @abstractmethod
    def read(self, entry: str) -> Input:
        """The input.

        Raises:
            DataError: it cannot be used any more.
        """

    def stamp(self, entry: str) -> list[int] | None:
        """Numbers that change whenever the entry may have to be checked again; None: always."""
        return None


class Texts(InputSource):
    """The entry itself, as it stands in the file."""

    modality: Modality = "text"

    def check(self, entry: str) -> str:
        return hashlib.sha256(entry.encode()).hexdigest()

    def read(self, entry: str) -> Input:
        return entry


class FeatureIds(Texts):
    """Names of states that another tool has written; the encoder `features` finds them."""

    modality: Modality = "array"


class Files(InputSource):
    """Files in one folder; nothing outside it is ever opened."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, str(folder.resolve())

    def path(self, entry: str) -> Path:
        """The file an entry names.

        Raises:
            DataError: there is none, or it lies outside the folder.
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
    """`.npy` files: Float[s d], s states of d channels each and the same d in all; or Float[n], one state or audio."""

    modality: Modality = "array"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._first: tuple[str, int] | None = None

    def read(self, entry: str) -> Input:
        array = load_states(self.path(entry), entry)
        if len(array) == 1:
            return array  # audio is of any length, and for a single state the encoder knows its width
        self._first = self._first or (entry, array.shape[1])
        if array.shape[1] != self._first[1]:
            raise DataError(f"{entry}: {array.shape[1]} channels, but {self._first[0]} has {self._first[1]}")
        return array


def load_states(path: Path, name: str) -> NDArray[np.float32]:
    """The states in a `.npy` file as Float[s d], in float32.

    Raises:
        DataError: the file cannot be read, or is no array of finite numbers of rank 1 or 2.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise DataError(f"{name}: cannot be read ({error.strerror})") from error
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{name}: not a .npy file of numbers ({' '.join(str(error).split())})") from error
    return states_of(array, name)


def states_of(array: object, name: str) -> NDArray[np.float32]:
    """An array as states, Float[s d], in float32.

    Raises:
        DataError: it is no array of finite numbers of rank 1 or 2.
    """
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise DataError(f"{name}: not one array of numbers")
    if array.ndim not in (1, 2) or not array.size:
        raise DataError(f"{name}: an array of shape {array.shape}; states by channels are needed (rank 2, or 1 for "
                        "a single state)")  # fmt: skip
    with np.errstate(over="ignore"):
        states: NDArray[np.float32] = np.atleast_2d(array).astype(np.float32)
    if not np.isfinite(states).all():
        row, column = (int(index[0]) for index in np.nonzero(~np.isfinite(states)))
        raise DataError(f"{name}: {np.atleast_2d(array)[row, column]} at row {row}, column {column}: every number has "
                        "to be finite")  # fmt: skip
    return states


def inside(folder: Path, entry: str) -> Path:
    """The file that an entry of a data file names, all links followed.

    Raises:
        DataError: there is no such file in the folder, or the entry leads outside it.
    """
    try:
        root = folder.resolve()
        path = (root / entry).resolve()
        if not path.is_relative_to(root):
            raise DataError(f"{entry!r} leads outside {folder}: name a file in it")
        if path.is_file():
            return path
    except (OSError, ValueError, RuntimeError) as error:  # too long a name, a null byte, a loop of links
        raise DataError(f"{entry!r} cannot name a file in {folder}") from error
    raise DataError(f"{entry!r}: no such file in {folder}")
