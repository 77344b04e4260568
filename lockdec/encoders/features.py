"""States computed by another tool: read from a folder by id, or given as arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os.path import expanduser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from lockdec.data.captions import CaptionSet, Input, Modality, composed
from lockdec.encoders.contract import Encoder
from lockdec.errors import ConfigError, DataError, StoreError
from lockdec.store import file_identity, file_sha256
from lockdec.store.reading import MOST_IDS_BYTES, read_bytes, read_json
from lockdec.transformer.encoded import Encoded

IDS, STATES, LENGTHS = ("ids.txt", "ids.json"), ("states.npy", "states.safetensors"), "lengths.npy"
_CHECKED_AT_ONCE = 1 << 22  # numbers

_finite: set[tuple[tuple[int, ...] | None, ...]] = set()  # the files whose numbers this process has checked


class Features(Encoder):
    """Precomputed states.

    With a `path`, the inputs are ids (`data=folder` reads them from its `input` column) and the folder contains

    - `ids.txt`, one id per line, or `ids.json`, a list of ids;
    - `states.npy`, or `states.safetensors` with a tensor `states`: Float[n s d]; or Float[total d], input after input;
    - `lengths.npy`, or a tensor `lengths` in the same safetensors file: how many states each input has. Without it,
      all s states are real, and each row of Float[n d] is the single state of an input.

    The states are memory-mapped. Nothing is unpickled. A process hashes each file and checks its numbers once, and
    again only if the file's size or times change.

    Args:
        path: the folder; None if the inputs themselves are arrays, Float[s d] or Float[d].
        dim: channels of a state; only needed without a folder.

    Raises:
        ConfigError: not exactly one of `path` and `dim` is given.
        DataError: the files are not as described, an id occurs twice, or a number is not finite.
    """

    modality: Modality = "array"

    def __init__(self, path: str | None = None, dim: int | None = None) -> None:
        super().__init__()
        if (path is None) == (dim is None):
            raise ConfigError(f"encoder.path={path} encoder.dim={dim}: give either path, a folder of states, or dim, "
                              "the channels of the states that the data contains as arrays")  # fmt: skip
        self.folder = None if path is None else Path(expanduser(path))
        self._stored = None if self.folder is None else _open(self.folder)
        self.dim = self._stored.dim if self._stored else dim or 0

    @property
    def settings(self) -> Mapping[str, Any]:
        files = self._stored.files if self._stored else []
        return {"files": {file.name: file_sha256(file) for file in files}, "dim": self.dim}

    def check(self, data: CaptionSet) -> None:
        """Raise DataError, which names the first such input, if inputs have no states in the folder."""
        if self._stored:
            for row in range(len(data)):  # one by one, since inputs of another kind may be large
                self._stored.row(*data.inputs([row]))

    def preprocess(self, inputs: Sequence[Input]) -> list[Float[Tensor, "_ d"]]:
        """The states of each input.

        Raises:
            DataError: an id is not in the folder, or an array is not Float[s dim] or Float[dim].
        """
        if self._stored:
            return [self._stored.states(self._stored.row(item)) for item in inputs]
        return [self._given(item) for item in inputs]

    def forward(self, batch: list[Float[Tensor, "_ d"]]) -> Encoded:
        """The states, padded to the longest input."""
        pad = nn.utils.rnn.pad_sequence
        masks = [torch.ones(len(states), dtype=torch.bool) for states in batch]
        return Encoded(pad(batch, batch_first=True), pad(masks, batch_first=True))

    def _given(self, item: Input) -> Float[Tensor, "_ d"]:
        if not isinstance(item, np.ndarray):
            raise DataError(f"encoder=features without encoder.path reads arrays, not {item!r}: "
                            "name the folder that contains their states")  # fmt: skip
        states = np.atleast_2d(item)
        if states.ndim != 2 or not len(states) or states.shape[1] != self.dim:
            raise DataError(f"an input of shape {item.shape}: states by channels are needed, with "
                            f"encoder.dim={self.dim} channels")  # fmt: skip
        return torch.from_numpy(states.astype(np.float32))


class _Stored(NamedTuple):
    """Open files: `read` returns rows of Float[rows d]; those of input i are from starts[i] to ends[i]."""

    folder: Path
    files: list[Path]
    rows: dict[str, int]
    read: Callable[[int, int], Tensor]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    dim: int

    def row(self, item: Input) -> int:
        """The index of the input with this id."""
        if not isinstance(item, str):
            raise DataError(f"encoder.path={self.folder}: states are found by id, but the data's inputs are "
                            f"{type(item).__name__}; leave encoder.path out")  # fmt: skip
        row = self.rows.get(composed(item))
        if row is None:
            raise DataError(f"{self.files[0]}: no id {item!r} among its {len(self.rows)}, but the data has it")
        return row

    def states(self, row: int) -> Float[Tensor, "_ d"]:
        """The states of one input."""
        return self.read(int(self.starts[row]), int(self.ends[row]))


def _open(folder: Path) -> _Stored:
    if not folder.is_dir():
        raise DataError(f"encoder.path={folder}: no such folder")
    ids_file, states_file = _one_of(folder, IDS), _one_of(folder, STATES)
    ids = _ids(ids_file)
    array = (_npy if states_file.suffix == ".npy" else _safetensors)(states_file)
    shape, kind = array.shape, array.kind
    if len(shape) not in (2, 3) or 0 in shape or kind not in "fiu":
        raise DataError(f"{states_file}: an array of shape {tuple(shape)} and kind {kind!r}; numbers of rank 3 "
                        "(inputs, states, channels) or 2 are needed")  # fmt: skip
    lengths, files = array.lengths, [ids_file, states_file]
    if (folder / LENGTHS).is_file():
        if lengths is not None:
            raise DataError(f"encoder.path={folder}: both {LENGTHS} and {states_file.name} have lengths; keep one")
        lengths = _load(folder / LENGTHS)
        files.append(folder / LENGTHS)
    starts, ends = _places(ids_file, states_file, len(ids), shape, lengths)
    identities = tuple(map(file_identity, files))
    if identities not in _finite:
        if (found := _not_finite(array, starts, ends)) is not None:
            row = int(np.searchsorted(starts, found, side="right")) - 1
            raise DataError(f"{states_file}: id {ids[row]!r}, state {found - starts[row]}: not every number is finite")
        if None not in identities:
            _finite.add(identities)
    rows = {composed(name): row for row, name in enumerate(ids)}
    return _Stored(folder, files, rows, array.read, starts, ends, shape[-1])


def _one_of(folder: Path, names: Sequence[str]) -> Path:
    found = [folder / name for name in names if (folder / name).is_file()]
    if len(found) != 1:
        has = "both are" if found else "none is"
        raise DataError(f"encoder.path={folder}: one of {' and '.join(names)} is needed, but {has} there")
    return found[0]


def _ids(file: Path) -> list[str]:
    try:
        if file.suffix == ".json":
            ids = read_json(file, MOST_IDS_BYTES, links=True)
        else:
            ids = _lines(read_bytes(file, MOST_IDS_BYTES, links=True).decode("utf-8-sig"))
    except (StoreError, ValueError) as error:
        reason = str(error).removeprefix(f"{file}: ")
        raise DataError(f"{file}: cannot be read as UTF-8 {file.suffix[1:]} ({reason})") from error
    if not isinstance(ids, list) or not ids or not all(isinstance(name, str) and name for name in ids):
        raise DataError(f"{file}: ids must be non-empty texts, one for each input, and at least one")
    first: dict[str, int] = {}
    for number, name in enumerate(map(composed, ids), start=1):
        if name in first:
            raise DataError(f"{file} row {number}: id {name!r} occurs twice (first in row {first[name]})")
        first[name] = number
    return ids


def _lines(text: str) -> list[str]:
    return (
        text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    )  # an id may contain other line separators of Unicode


def _load(file: Path, mapped: bool = False) -> NDArray[Any]:
    try:
        array = np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False)
    except Exception as error:  # numpy parses headers as Python literals, which can fail in many ways
        raise DataError(f"{file}: not a .npy file of numbers ({' '.join(str(error).split())})") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{file}: several arrays; one is needed")
    return array


class _Array(NamedTuple):
    """Float[n s d] or Float[rows d] on disk.

    Attributes:
        lengths: those in the same file, if there are any.
        part: a slice of the array along its first axis, in float32.
        read: rows of Float[rows d], all of the same input, in float32.
    """

    shape: tuple[int, ...]
    kind: str
    lengths: NDArray[Any] | None
    part: Callable[[int, int], Tensor]
    read: Callable[[int, int], Tensor]


def _npy(file: Path) -> _Array:
    array = _load(file, mapped=True)
    flat = array.reshape(-1, array.shape[-1]) if array.ndim == 3 and array.size else array  # a view of the map

    def rows(of: NDArray[Any], start: int, end: int) -> Tensor:
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, and is refused as that
            return torch.from_numpy(np.array(of[start:end], np.float32))

    return _Array(array.shape, array.dtype.kind, None, partial(rows, array), partial(rows, flat))


def _safetensors(file: Path) -> _Array:
    from safetensors import SafetensorError, safe_open

    try:
        opened: Any = safe_open(file, framework="pt")
        names = set(opened.keys())
        states = opened.get_slice("states") if "states" in names else None
        lengths = opened.get_tensor("lengths").numpy() if "lengths" in names else None
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file}: not a safetensors file ({error})") from error
    if states is None:
        raise DataError(f"{file}: no tensor states (there are: {', '.join(sorted(names))})")
    shape = tuple(states.get_shape())
    kind = "f" if "F" in states.get_dtype() else states.get_dtype()[0].lower()

    def part(start: int, end: int) -> Tensor:
        rows: Tensor = states[start:end]
        return rows.float()

    def read(start: int, end: int) -> Tensor:
        if len(shape) == 2:
            return part(start, end)
        outer = start // shape[1]
        return part(outer, outer + 1)[0, start - outer * shape[1] : end - outer * shape[1]]

    return _Array(shape, kind, lengths, part, read)


def _places(
    ids_file: Path, states_file: Path, count: int, shape: Sequence[int], lengths: NDArray[Any] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each input's states start and end, in rows of Float[rows d]."""
    if lengths is not None:
        if lengths.shape != (count,) or lengths.dtype.kind not in "iu" or lengths.min(initial=1) < 1:
            raise DataError(f"{states_file.parent}: the lengths have shape {lengths.shape} and kind "
                            f"{lengths.dtype.kind!r}; {ids_file.name} asks for {count}, each at least 1")  # fmt: skip
        lengths = lengths.astype(np.int64)
    if len(shape) == 2 and lengths is not None:
        ends = np.cumsum(lengths)
        if ends[-1] != shape[0]:
            raise DataError(f"{states_file}: {shape[0]} states, but the lengths add up to {ends[-1]}")
        return ends - lengths, ends
    if shape[0] != count:
        raise DataError(f"{states_file}: states of {shape[0]} inputs, but {ids_file.name} has {count} ids")
    most = shape[1] if len(shape) == 3 else 1
    lengths = np.full(count, most) if lengths is None else lengths
    if (longest := int(lengths.argmax())) >= 0 and lengths[longest] > most:
        raise DataError(f"{states_file}: input {longest + 1} has {lengths[longest]} states by its length, but there "
                        f"is room for {most}")  # fmt: skip
    starts = np.arange(count) * most
    return starts, starts + lengths


def _not_finite(array: _Array, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> int | None:
    """The first row of Float[rows d] that belongs to an input and has a number which is not finite."""
    if array.kind != "f":
        return None
    step = max(1, _CHECKED_AT_ONCE // math.prod(array.shape[1:]))
    for first in range(0, array.shape[0], step):
        finite = array.part(first, first + step).isfinite().all(dim=-1).numpy()
        if finite.ndim == 2:  # what is beyond the length of an input is not read
            lengths = (ends - starts)[first : first + step, None]
            finite |= np.arange(finite.shape[1]) >= lengths
        if not finite.all():
            return first * (finite.size // len(finite)) + int(finite.argmin())
    return None
