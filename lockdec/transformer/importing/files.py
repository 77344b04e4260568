"""The files of a checkpoint, and what is wrong with them, found before any tensor is read.

Weights are read from safetensors and GGUF files only, which contain numbers and no code.
"""

from __future__ import annotations

import json
import stat
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from torch import Tensor

from lockdec.errors import LockdecError

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.pkl")
MOST_JSON = 32_000_000  # bytes; the largest models there are have 10 MB. Python takes up to 28 times as many
MOST_BESIDE = 64_000_000  # bytes of every other file but the weights; the largest tokenizers in use take 34 MB
BESIDE = ("*.json", "*.txt", "*.model", "*.jinja")
MOST_LABELS = 100_000  # transformers gives each a name
POINTER = b"version https://git-lfs"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

ALIASES = {"lm_head.weight": "embed_out.weight"}  # as GPT-NeoX stores it


class Entry(NamedTuple):
    """A tensor as the header of a safetensors file lists it."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


class Stored(Mapping[str, Tensor]):
    """The tensors of a checkpoint by name, each read from its file when it is asked for."""

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """The tensor as the file has it."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, which is not read for it."""

    @abstractmethod
    def where(self, name: str) -> str:
        """What errors about a tensor begin with."""

    def __getitem__(self, name: str) -> Tensor:
        """The tensor; LockdecError if a number in it is not finite."""
        tensor = self.read(name)
        extremes = torch.stack(tensor.aminmax()) if tensor.numel() else tensor
        if not extremes.isfinite().all():
            raise LockdecError(f"{self.where(name)} holds NaN or infinity: the checkpoint is damaged or diverged")
        return tensor.float() if tensor.dtype == torch.float64 else tensor


class Safetensors(Stored):
    """The tensors of a folder of safetensors files, memory-mapped.

    Attributes:
        prefix: of the names that are asked for; some checkpoints leave it out.

    Raises:
        LockdecError: as `entries_of`.
    """

    prefix = ""

    def __init__(self, folder: Path) -> None:
        self.entries = entries_of(folder)
        self._open: dict[Path, Any] = {}

    @property
    def dtype(self) -> torch.dtype:
        """The type that most of the weights have."""
        sizes: dict[str, int] = {}
        for entry in self.entries.values():
            sizes[entry.dtype] = sizes.get(entry.dtype, 0) + torch.Size(entry.shape).numel()
        return DTYPES.get(max(sizes, key=lambda kind: sizes[kind]), torch.float32)

    def _stored(self, name: str) -> str:
        names = (name, name.removeprefix(self.prefix), ALIASES.get(name, name))
        return next((known for known in names if known in self.entries), name)

    def read(self, name: str) -> Tensor:
        stored = self._stored(name)
        file = self.entries[stored].file
        if file not in self._open:
            reader: Any = safetensors.safe_open
            self._open[file] = reader(file, framework="pt")
        tensor: Tensor = self._open[file].get_tensor(stored)
        return tensor

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._stored(name) in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        entry = self.entries[self._stored(name)]
        if entry.dtype not in DTYPES:  # other tensors may be, such as masks that old versions stored
            kinds = ", ".join(sorted(DTYPES))
            raise LockdecError(f"{self.where(name)} is stored as {entry.dtype}, and weights are read from {kinds}")
        return entry.shape

    def where(self, name: str) -> str:
        stored = self._stored(name)
        return f"{self.entries[stored].file}: {stored}"


def entries_of(folder: Path) -> dict[str, Entry]:
    """What the headers of a folder's safetensors files list, by the name of the tensor.

    Raises:
        LockdecError: there are none, a shard is missing, or a file is damaged.
    """
    entries: dict[str, Entry] = {}
    for path in shards(folder):
        for name, (dtype, shape) in header(path).items():
            entries[name] = Entry(path, dtype, shape)
    return entries


def require_modest(folder: Path) -> None:
    """Raise LockdecError if the files beside the weights are too large, or the config calls for too much.

    transformers reads all of them without a bound, and builds as many layers as the config says.
    """
    for path in sorted({path for pattern in BESIDE for path in folder.glob(pattern)}):
        try:
            status = path.stat()
        except OSError as error:
            raise LockdecError(f"{path}: cannot be read ({error.strerror})") from error
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BESIDE:
            raise LockdecError(f"{path}: not a regular file of at most {MOST_BESIDE:,} bytes")
    config, tensors = json_object(folder / CONFIG), len(entries_of(folder))
    for name, value in numbers_in(config):
        if name == "num_labels" and value > MOST_LABELS:
            raise LockdecError(f"{folder / CONFIG}: num_labels={value}, and at most {MOST_LABELS:,} are read")
        if name.endswith("layers") and value > tensors:
            raise LockdecError(f"{folder / CONFIG}: {name}={value}, but its weights are only {tensors} tensors")
        if name.endswith("layers") and value < (name == "num_hidden_layers"):
            raise LockdecError(f"{folder / CONFIG}: {name}={value} is not a number of layers")


def numbers_in(value: object, name: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in plain containers, each with the key that it stands under, in a list or not."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers_in(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from numbers_in(inner, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


def shards(folder: Path) -> list[Path]:
    """The safetensors files that hold a folder's weights.

    Raises:
        LockdecError: there are none, or the index is damaged or names files that are not there.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        index = json_object(folder / INDEX)
        named = index.get("weight_map")
        names = sorted({str(name) for name in named.values()}) if isinstance(named, dict) else []
        if not names or any(Path(name).name != name for name in names):
            raise LockdecError(f"{folder / INDEX}: no weight_map from the names of tensors to files beside it")
        if absent := [name for name in names if not (folder / name).is_file()]:
            more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
            raise LockdecError(f"{folder}: {absent[0]}{more} is missing, which {INDEX} names: download it again")
        return [folder / name for name in names]
    others = sorted(folder.glob("*.safetensors"))
    if len(others) == 1:
        return others
    pickled = sorted(path.name for kind in PICKLED for path in folder.glob(kind))
    found = (
        f"only {', '.join(pickled)}, which is not read because it can contain code"
        if pickled
        else f"{len(others)} safetensors files and no {INDEX}"
        if others
        else "no weights"
    )
    raise LockdecError(f"{folder}: weights are read from {WEIGHTS}, and the folder has {found}")


def header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The type and shape of each tensor of a safetensors file.

    Raises:
        LockdecError: the file is empty, a Git LFS pointer, cut off, or otherwise not a safetensors file.
    """
    size = plausible_size(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            listed: Any = json.loads(file.read(length)) if length <= min(size - 8, MOST_JSON) else None
        tensors = {name: entry for name, entry in listed.items() if name != "__metadata__"}
        found = {name: (str(entry["dtype"]), tuple(map(int, entry["shape"]))) for name, entry in tensors.items()}
        end = 8 + length + max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
    except OSError as error:
        raise LockdecError(f"{path}: cannot be read ({error.strerror})") from error
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise LockdecError(f"{path}: not a safetensors file ({size:,} bytes, without its header)") from error
    if end != size:
        raise LockdecError(f"{path}: {size:,} bytes, and its header promises {end:,}: download it again")
    try:
        reader: Any = safetensors.safe_open
        reader(path, framework="pt")
    except Exception as error:  # of the Rust side
        raise LockdecError(f"{path}: not a safetensors file ({plain_reason(error)})") from error
    return found


def plausible_size(path: Path) -> int:
    """The size of a file of weights in bytes; LockdecError if it is empty, a Git LFS pointer, or cannot be read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise LockdecError(f"{path}: not a regular file")
        size = status.st_size
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except OSError as error:
        raise LockdecError(f"{path}: cannot be read ({error.strerror})") from error
    if start == POINTER:
        raise LockdecError(f"{path}: a Git LFS pointer and not the weights: run git lfs pull where it was cloned")
    if not size:
        raise LockdecError(f"{path}: the file is empty: download it again")
    return size


def json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; LockdecError if it is missing or anything else."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_JSON:
            raise LockdecError(f"{path}: not a regular file of at most {MOST_JSON:,} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LockdecError(f"{path}: missing; a checkpoint needs it") from error
    except OSError as error:
        raise LockdecError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise LockdecError(f"{path}: not JSON ({plain_reason(error)})") from error
    if not isinstance(found, dict):
        raise LockdecError(f"{path}: a {type(found).__name__} where an object is needed")
    return found


def plain_reason(error: BaseException) -> str:
    """The message of an exception on one line, its first sentences at most."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."
