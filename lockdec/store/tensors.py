"""Tensors on disk, as safetensors, which contain numbers but no code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from lockdec.errors import StoreError
from lockdec.store.writing import write_bytes


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write named tensors.

    Raises:
        StoreError: the disk is full or the file cannot be written.
    """
    write_bytes(path, to_bytes({name: tensor.detach().contiguous() for name, tensor in tensors.items()}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read what `save_tensors` wrote.

    Raises:
        StoreError: the file cannot be read or is not a safetensors file.
    """
    try:
        return load_file(path)
    # A header can also name a shape or a type that does not exist.
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise StoreError(f"{path}: not a file of tensors ({error})") from error


def load_weights(module: nn.Module, path: Path, partly: bool = False) -> None:
    """Load the state of a module that `save_tensors` wrote.

    Args:
        partly: the file may contain some of the module's tensors; all others stay.

    Raises:
        StoreError: as `load_tensors`, or the tensors do not fit this module.
    """
    try:
        unknown = module.load_state_dict(load_tensors(path), strict=not partly).unexpected_keys
    except RuntimeError as error:
        raise StoreError(f"{path}: not the weights of a {type(module).__name__} ({error})") from error
    if unknown:
        raise StoreError(f"{path}: not weights of a {type(module).__name__} ({unknown[0]} is not known)")
