"""GGUF files, as llama.cpp writes them: options, tokenizer and weights, often quantised, in one file.

transformers reads the options, and package `gguf` the tensors; dequantised, they are float32.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from lockdec.errors import LockdecError
from lockdec.transformer.importing.checkpoint import Family, Options
from lockdec.transformer.importing.files import Stored, plain_reason, plausible_size

NAMES = {"gemma3_text": "gemma3"}  # what they call a family where transformers calls it otherwise
MAGIC = b"GGUF"
FORMATS = dict(enumerate("BbHhIif?", start=0)) | {10: "Q", 11: "q", 12: "d"}  # of values, by their type
TEXT, ARRAY = 8, 9
# Far above any model there is; package `gguf` makes Python objects of each tensor and of each item of an array.
MOST_TENSORS, MOST_ITEMS, MOST_HEADER = 2**17, 2**22, 128_000_000


class GGUF(Stored):
    """The tensors of a GGUF file by the names of transformers: memory-mapped.

    Args:
        stored: the file's tensors, by their names in it.
        expected: the names of transformers.

    Raises:
        LockdecError: the family is not read from GGUF files, or there are tensors that have none of these names.
    """

    def __init__(
        self, path: Path, stored: Mapping[str, Any], options: Options, family: Family, expected: Iterable[str]
    ) -> None:
        if family.from_gguf is None:
            raise LockdecError(f"{path}: a {options.get('model_type')} is read from safetensors only, not from GGUF")
        self.path, self.options, self.adapt = path, options, family.from_gguf
        names = _names(options, expected)
        self.tensors = {name: stored[there] for name, there in names.items() if there in stored}
        if unknown := sorted(stored.keys() - names.values()):
            raise LockdecError(f"{path}: tensor {unknown[0]} has no counterpart in a {options.get('model_type')} here")

    def read(self, name: str) -> Tensor:
        from gguf import dequantize

        stored = self.tensors[name]
        values = np.array(dequantize(stored.data, stored.tensor_type), dtype=np.float32)
        return self.adapt(name, torch.from_numpy(values), self.options)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        shape = tuple(int(size) for size in reversed(self.tensors[name].shape.tolist()))
        return tuple(self.adapt(name, torch.empty(shape, device="meta"), self.options).shape)

    def where(self, name: str) -> str:
        return f"{self.path}: {self.tensors[name].name}"


def open_gguf(path: Path) -> dict[str, Any]:
    """The tensors of a file by their names in it, as package `gguf` has them.

    Raises:
        LockdecError: the package is not installed or cannot read the file.
    """
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError as error:
        raise LockdecError(f"{path}: reading it needs package gguf (pip install 'lockdec[huggingface]')") from error
    gguf_options(path)
    try:
        return {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    except Exception as error:  # whatever a damaged header leads to
        raise _damaged(path, plain_reason(error)) from error


def gguf_options(path: Path) -> dict[str, Any]:
    """The numbers and short texts at the start of a file, by their names in it; needs no package.

    Raises:
        LockdecError: it is no GGUF file, is cut off in its header, or has more in it than any model needs.
    """
    plausible_size(path)
    found: dict[str, Any] = {}
    with path.open("rb") as file:
        try:
            if file.read(len(MAGIC)) != MAGIC:
                raise LockdecError(f"{path}: not a GGUF file ({path.stat().st_size:,} bytes)")
            version, tensors, options = struct.unpack("<IQQ", _exactly(file, 20))
            if version not in (2, 3):
                raise LockdecError(f"{path}: GGUF version {version}, and versions 2 and 3 are read")
            if tensors > MOST_TENSORS:
                raise ValueError(f"{tensors:,} tensors")
            left = MOST_ITEMS
            for _ in range(options):
                name = str(_text(file))
                value, items = _value(file, _number(file, "I"), left)
                left -= items
                if value is not None:
                    found[name] = value
        except OSError as error:
            raise LockdecError(f"{path}: cannot be read ({error.strerror})") from error
        except (EOFError, ValueError) as error:
            raise _damaged(path, plain_reason(error)) from error
    return found


def _value(file: BinaryIO, kind: int, left: int) -> tuple[Any, int]:
    """A value, None for a long text or an array, and how many items it has; ValueError for more than are left."""
    if kind in FORMATS:
        return _number(file, FORMATS[kind]), 1
    if kind == TEXT:
        return _text(file), 1
    if kind != ARRAY:
        raise ValueError(f"a value of type {kind}")
    inner, count = _number(file, "I"), _number(file, "Q")
    if count > left:
        raise ValueError(f"a list of {count:,} items")
    if inner in FORMATS:
        _skip(file, count * struct.calcsize(f"<{FORMATS[inner]}"))
    elif inner == TEXT:
        for _ in range(count):
            _skip(file, _number(file, "Q"))
    else:
        raise ValueError(f"a list of values of type {inner}")
    return None, count


def _text(file: BinaryIO, longest: int = 1_000) -> str | None:
    length = _number(file, "Q")
    if length > longest:
        _skip(file, length)
        return None
    return _exactly(file, length).decode("utf-8", "replace")


def _number(file: BinaryIO, kind: str) -> Any:
    return struct.unpack(f"<{kind}", _exactly(file, struct.calcsize(f"<{kind}")))[0]


def _exactly(file: BinaryIO, count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise EOFError("its header is not all there")
    return content


def _skip(file: BinaryIO, count: int) -> None:
    if file.tell() + count > MOST_HEADER:
        raise ValueError(f"a header of more than {MOST_HEADER:,} bytes")
    file.seek(count, 1)


def _damaged(path: Path, reason: str) -> LockdecError:
    return LockdecError(f"{path}: cut off or damaged: download it again ({path.stat().st_size:,} bytes; {reason})")


def _names(options: Options, expected: Iterable[str]) -> dict[str, str]:
    """The name of each expected tensor in a GGUF file."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    kind = NAMES.get(options.get("model_type"), options.get("model_type"))
    kind = "llama" if kind == "mistral" else kind
    arch = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == kind)
    known = get_tensor_name_map(arch, options.get("num_hidden_layers"))
    names = {}
    for name in expected:
        stem, _, kind = name.rpartition(".")
        if there := known.get_name(stem):
            names[name] = f"{there}.{kind}"
    return names
