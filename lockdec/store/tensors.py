"""How tensors lie on disk: as safetensors, which hold numbers and nothing that could be run."""

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
    """Write tensors by their names.

    Raises:
        StoreError: the file does not fit or cannot be written.
    """
    write_bytes(path, to_bytes({name: tensor.detach().contiguous() for name, tensor in tensors.items()}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read what `save_tensors` wrote.

    Raises:
        StoreError: the file cannot be read or does not hold tensors alone.
    """
    try:
        return load_file(path)
    # A header can also ask for a shape or a type that there is none of.
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise StoreError(f"{path}: not a file of tensors ({error})") from error


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a module's weights from what `save_tensors` wrote of its state.

    Raises:
        StoreError: as `load_tensors`, or the tensors are not those of this module.
    """
    try:
        module.load_state_dict(load_tensors(path))
    except RuntimeError as error:
        raise StoreError(f"{path}: not the weights of a {type(module).__name__} ({error})") from error
