"""The normalised states of a whole caption set in a folder: computed once, read by row."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from lockdec.console import track
from lockdec.data.captions import CaptionSet
from lockdec.encoders.contract import Encoder, encode_named
from lockdec.encoders.normalisation import Normalisation, kinds_of
from lockdec.errors import DataError, StoreError
from lockdec.store.reading import MOST_IDS_BYTES, read_json
from lockdec.store.writing import require_free_space
from lockdec.transformer.encoded import Encoded

STATES, LENGTHS, IDS, NORMALISATION = "states.npy", "lengths.npy", "ids.json", "normalisation.safetensors"
_RAW = "raw.float32"
_STORED = "float16"
_CHUNK = 64  # inputs processed at a time: few enough that their states stay in the CPU's cache

Array: TypeAlias = NDArray[Any]


class StatesFile:
    """Inputs, states and channels in a file, of which only what is asked for is read.

    A mapped file would count as memory of the process, and more of it than was read: the kernel maps what lies around
    it, too.
    """

    def __init__(self, path: Path) -> None:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if not mapped.flags.c_contiguous:
            raise ValueError(f"{path.name} must hold input after input")
        self.path, self.shape, self._dtype, self._offset = path, mapped.shape, mapped.dtype, mapped.offset
        self._file = path.open("rb")  # so that it can be read after somebody has removed it

    def __reduce__(self) -> tuple[type[StatesFile], tuple[Path]]:
        return StatesFile, (self.path,)

    def __getitem__(self, part: tuple[list[int], slice]) -> Array:
        rows, states = part
        if rows and not (min(rows) >= 0 and max(rows) < self.shape[0] and states.stop <= self.shape[1]):
            raise IndexError(f"{self.path} has {self.shape[0]} inputs of {self.shape[1]} states")
        found = np.empty((len(rows), states.stop, self.shape[2]), self._dtype)
        size = math.prod(self.shape[1:]) * self._dtype.itemsize
        for row, into in zip(rows, found, strict=True):
            self._read(memoryview(into.reshape(-1).view(np.uint8)), self._offset + row * size)
        return found

    def _read(self, into: memoryview, start: int) -> None:
        while into:
            count = os.preadv(self._file.fileno(), [into], start)
            if not count:
                raise StoreError(f"{self.path} has become shorter since it was opened")
            into, start = into[count:], start + count


@runtime_checkable
class States(Protocol):
    """The states of numbered inputs.

    Attributes:
        max_states: the largest number of states of an input.
    """

    max_states: int

    def batch(self, rows: Sequence[int]) -> Encoded:
        """The states of these inputs."""


class EncodedSet:
    """The states of each row of a caption set; created by `write` or `open`.

    Attributes:
        ids: those of the caption set.
        dim: channels of a state.
        max_states: the largest number of states of an input.
        normalisation: already applied to the stored states; apply it to the states of new inputs.
    """

    def __init__(
        self, states: Array | StatesFile, lengths: Array, ids: tuple[str, ...], normalisation: Normalisation
    ) -> None:
        self._states, self._lengths, self.ids, self.normalisation = states, lengths, ids, normalisation
        self.max_states, self.dim = int(states.shape[1]), int(states.shape[2])

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def write(
        cls,
        folder: Path,
        encoder: Encoder,
        captions: CaptionSet,
        normalise: str | Sequence[str] = "standardise",
        batch_size: int = 16,
        dtype: str = _STORED,
    ) -> EncodedSet:
        """Encode every input, fit the normalisation on the training split, and store the normalised states.

        Args:
            folder: must exist; files of the same names are replaced.
            encoder, captions: what to encode, and with which encoder.
            normalise: "none", "standardise" or "whiten", or one of these for each of `encoder.groups`.
            batch_size: inputs encoded at a time; changes the states only by rounding.
            dtype: of the stored states: "float16" or "float32".

        Raises:
            ConfigError: `normalise` is not one of these.
            DataError: an input cannot be encoded, or a state is not finite or does not fit `dtype`; the error names
                the input.
            StoreError: the states will not fit on the disk; raised after the first batch.
        """
        kinds_of(normalise, len(encoder.groups))
        raw, lengths = _encode(folder, encoder, captions, batch_size, np.dtype(dtype))
        ends = np.cumsum(lengths)
        begins, train = ends - lengths, captions.splits["train"]

        def training() -> Iterator[Tensor]:
            for start in range(0, len(train), _CHUNK):
                rows = train[start : start + _CHUNK]
                yield torch.from_numpy(np.concatenate([raw[begins[row] : ends[row]] for row in rows]))

        if encoder.apart:
            normalisation = Normalisation.fit_apart(normalise, training, encoder.groups, encoder.apart)
        else:
            normalisation = Normalisation.fit(normalise, training(), encoder.groups)
        shape, stored = (len(captions), int(lengths.max()), encoder.dim), getattr(torch, dtype)
        real = torch.arange(shape[1]) < torch.from_numpy(lengths)[:, None]
        with (folder / STATES).open("wb") as file:
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(captions), _CHUNK):
                rows = slice(start, start + _CHUNK)
                flat = normalisation(torch.from_numpy(raw[begins[start] : ends[rows][-1]]))
                fits = flat.abs().amax(dim=1) <= torch.finfo(stored).max
                if not fits.all():
                    row = np.searchsorted(ends, begins[start] + int(fits.int().argmin()), side="right")
                    name = captions.ids[row]
                    raise DataError(f"input {name!r}: its encoder states are not finite numbers that fit {dtype}")
                chunk = flat.to(stored)
                if not real[rows].all():
                    chunk = torch.zeros(*real[rows].shape, encoder.dim, dtype=stored)
                    chunk[real[rows]] = flat.to(stored)
                file.write(chunk.numpy().data)
        np.save(folder / LENGTHS, lengths)
        (folder / IDS).write_text(json.dumps(captions.ids), encoding="utf-8")
        normalisation.save(folder / NORMALISATION)
        (folder / _RAW).unlink()
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> EncodedSet:
        """The states that `write` stored in a folder; they stay on disk.

        Raises:
            StoreError: a file is missing or malformed.
        """
        try:
            states = StatesFile(folder / STATES)
            lengths = np.load(folder / LENGTHS, allow_pickle=False)
            ids = tuple(read_json(folder / IDS, MOST_IDS_BYTES))
        except Exception as error:  # numpy parses headers as Python literals, which can fail in many ways
            raise StoreError(f"{folder}: not a folder of encoded inputs ({error})") from error
        if not isinstance(lengths, np.ndarray):
            raise StoreError(f"{folder}: {STATES} and {LENGTHS} must contain one array each")
        if len(states.shape) != 3 or not states.shape[0] == len(lengths) == len(ids):
            raise StoreError(f"{folder}: {STATES}, {LENGTHS} and {IDS} disagree on the number of inputs")
        if lengths.max(initial=0) > states.shape[1]:
            raise StoreError(f"{folder}: {LENGTHS} has more states of an input than {STATES}")
        return cls(states, lengths, ids, Normalisation.load(folder / NORMALISATION))

    def batch(self, rows: Sequence[int]) -> Encoded:
        """The normalised states of these rows in float32, padded with zeros to the longest one.

        Raises:
            StoreError: the file has become shorter since it was opened.
        """
        lengths = self._lengths[list(rows)]
        width = int(lengths.max())
        states = torch.from_numpy(self._states[list(rows), :width].astype(np.float32))
        return Encoded(states, torch.from_numpy(np.arange(width) < lengths[:, None]))

    def pooled(self, rows: Sequence[int]) -> Float[Tensor, "n d"]:
        """The mean normalised state of each row, by which inputs are compared."""
        pieces = []
        for start in range(0, len(rows), _CHUNK):
            encoded = self.batch(rows[start : start + _CHUNK])
            # Padding is zero, so the sum is over real states.
            pieces.append(encoded.states.sum(1) / encoded.mask.sum(1, keepdim=True))
        return torch.cat(pieces)


def normalised(encoded: Encoded, normalisation: Normalisation, dtype: str = _STORED) -> Encoded:
    """The states of new inputs in the form of `EncodedSet.batch`: normalised, rounded and padded with zeros.

    Args:
        encoded: the output of the encoder.
        normalisation: that of the encoded set.
        dtype: of the stored states.

    Raises:
        DataError: a state is not finite or does not fit `dtype`.
    """
    states = normalisation(encoded.states.float().cpu())
    states = states.to(getattr(torch, dtype)).float().masked_fill(~encoded.mask.cpu()[:, :, None], 0)
    if not states.isfinite().all():
        raise DataError(f"the encoder states are not finite numbers that fit {dtype}")
    return Encoded(states, encoded.mask.cpu())


def _encode(
    folder: Path, encoder: Encoder, captions: CaptionSet, batch_size: int, dtype: np.dtype[Any]
) -> tuple[Array, Array]:
    """The outputs of the encoder, input after input in one memory-mapped (total, dim) array, and their lengths.

    They are written to disk since the largest length is only known at the end, and they may not fit in memory.
    """
    path, lengths = folder / _RAW, list[int]()
    with path.open("wb") as file:
        starts = list(range(0, len(captions), batch_size))
        for rows in track(_batches(starts, batch_size, len(captions)), "encoding inputs", total=len(starts)):
            inputs = zip(captions.ids[rows.start : rows.stop], captions.inputs(rows), strict=True)
            encoded = encode_named(encoder, dict(inputs))
            lengths += encoded.mask.sum(1).tolist()
            if rows.start == 0:  # better now than after hours of encoding
                raw = sum(lengths) / len(rows) * encoder.dim * np.dtype(np.float32).itemsize
                stored = max(lengths) * encoder.dim * dtype.itemsize
                needed = int((raw + stored) * len(captions))
                require_free_space(folder / STATES, needed, f"a cache of the states of {len(captions)} inputs")
            real = encoded.states.flatten(0, 1) if encoded.mask.all() else encoded.states[encoded.mask]
            file.write(real.float().cpu().contiguous().numpy().data)
    return np.memmap(path, np.float32, mode="r+", shape=(sum(lengths), encoder.dim)), np.array(lengths)


def _batches(starts: Sequence[int], size: int, total: int) -> Iterator[range]:
    return (range(start, min(start + size, total)) for start in starts)
