"""GGUF files, as llama.cpp writes them: options, tokenizer and weights, often quantised, in one file.

transformers reads the options, and package `gguf` the tensors; dequantised, they are float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lockdec.errors import LockdecError
from lockdec.transformer.importing.checkpoint import Family, Options
from lockdec.transformer.importing.files import Stored, plain_reason, plausible_size

NAMES = {"gemma3_text": "gemma3"}  # what they call a family where transformers calls it otherwise


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
    size = plausible_size(path)
    try:
        return {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    except Exception as error:  # whatever a damaged header leads to
        with path.open("rb") as file:
            whole = file.read(4) == b"GGUF"
        what = "cut off or damaged: download it again" if whole else "not a GGUF file"
        raise LockdecError(f"{path}: {what} ({size:,} bytes; {plain_reason(error)})") from error


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
