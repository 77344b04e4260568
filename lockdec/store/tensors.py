"""Tensors on disk, as safetensors, which contain numbers but no code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from lockdec.errors import StoreError
from lockdec.store.writing import replacing, write_bytes

ALIGNMENT = 64  # bytes: a cache line, and the widest registers of a CPU
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
NAMES = {short: str(dtype).removeprefix("torch.") for dtype, short in DTYPES.items()}

FORMER = {"feed_forward.input.": "feed_forward.widen."}  # parts of names, and what they were in older files

Module = TypeVar("Module", bound=nn.Module)

MOST_DERIVED = 2**28  # numbers in tables that a module computes itself, such as rotary angles: 1 GB


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write named tensors.

    Raises:
        StoreError: the disk is full or the file cannot be written.
    """
    write_bytes(path, to_bytes({name: tensor.detach().contiguous() for name, tensor in tensors.items()}))


def stream_tensors(tensors: Iterable[tuple[str, Tensor]], shapes: Mapping[str, torch.Size], path: Path) -> None:
    """Write named tensors as they come, so that only one of them has to be in memory.

    The header of a safetensors file comes first and is known last: as much room as it can need is left for it.

    Args:
        shapes: of all that have to come; each tensor has the type that it comes with.

    Raises:
        StoreError: as `save_tensors`.
        ValueError: another tensor came than one of these, or of another shape.
    """
    listed: dict[str, Any] = {}
    longest = {name: _entry("BF16", shape, 10**15, 10**15) for name, shape in shapes.items()}
    room = -(-(8 + len(json.dumps(longest))) // ALIGNMENT) * ALIGNMENT
    needed = room + 4 * sum(shape.numel() for shape in shapes.values())
    with replacing(path, needed) as file:
        file.seek(room)
        for name, tensor in tensors:
            if name in listed or tensor.shape != shapes.get(name):
                raise ValueError(f"{name} of shape {tuple(tensor.shape)} does not belong into {path}")
            begin = file.tell() - room
            bits: Any = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy()
            file.write(bits)
            listed[name] = _entry(DTYPES[tensor.dtype], tensor.shape, begin, file.tell() - room)
        if missing := shapes.keys() - listed.keys():
            raise ValueError(f"{', '.join(sorted(missing))} did not come for {path}")
        file.seek(0)
        file.write((room - 8).to_bytes(8, "little") + json.dumps(listed).encode().ljust(room - 8))


def made_of(folder: Path) -> dict[str, int]:
    """The bytes of all weights in a folder, by the type of their numbers (`{"bfloat16": 2471628800}`).

    Args:
        folder: of an artifact, whose files have been verified; reads their headers alone.
    """
    found: dict[str, int] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, entry in header.items():
            if name != "__metadata__":
                dtype, (begin, end) = NAMES.get(entry["dtype"], entry["dtype"]), entry["data_offsets"]
                found[dtype] = found.get(dtype, 0) + end - begin
    return found


def _entry(dtype: str, shape: Sequence[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read what `save_tensors` wrote; tensors that an older file calls otherwise get their names of today.

    Raises:
        StoreError: the file cannot be read or is not a safetensors file.
    """
    try:
        tensors = load_file(path)
    # A header can also name a shape or a type that does not exist.
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise StoreError(f"{path}: not a file of tensors ({error})") from error
    return {_renamed(name, {before: now for now, before in FORMER.items()}): t for name, t in tensors.items()}


def fingerprinted(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor, memoryview]]:
    """What a fingerprint of weights is made of: each tensor's name, itself and its bytes.

    The names are the former ones, by which they are sorted: a new name leaves every fingerprint as it was.
    """
    for name, tensor in sorted((_renamed(name, FORMER), tensor) for name, tensor in tensors.items()):
        # The raw bytes, since numpy has no bfloat16.
        yield name, tensor, tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _renamed(name: str, parts: Mapping[str, str]) -> str:
    for part, other in parts.items():
        name = name.replace(part, other)
    return name


def map_weights(module: nn.Module, tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> None:
    """Fill a module on the meta device with tensors that `load_fitting` has read, converted to one type.

    They stay mapped into memory: they take time and memory only where they are used, and processes share them. Those
    that do not start at a cache line are copied, since kernels may otherwise compute in another order.
    """
    typed = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    aligned = {name: t if t.data_ptr() % ALIGNMENT == 0 else t.clone() for name, t in typed.items()}
    module.load_state_dict(aligned, assign=True)


def change_weights(module: nn.Module, path: Path) -> None:
    """Load some of a module's tensors, which `save_tensors` wrote; all others stay.

    Raises:
        StoreError: as `load_tensors`, or the tensors do not fit this module.
    """
    try:
        unknown = module.load_state_dict(load_tensors(path), strict=False).unexpected_keys
    except RuntimeError as error:
        raise StoreError(f"{path}: not the weights of a {type(module).__name__} ({error})") from error
    if unknown:
        raise StoreError(f"{path}: not weights of a {type(module).__name__} ({unknown[0]} is not known)")


def load_module(build: Callable[[], Module], path: Path) -> Module:
    """Build a module and load its state, which `save_tensors` wrote; StoreError as `load_fitting`."""
    tensors = load_fitting(build, path)
    module = build()
    module.load_state_dict(tensors)
    return module


def load_fitting(
    build: Callable[[], nn.Module], path: Path, prefix: str = "", others: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Read the tensors of a file, and check that they are the state of a module.

    The module is built on the meta device, without memory: a config may come from a stranger and name sizes that the
    file does not have.

    Args:
        build: builds the module.
        path: the file.
        prefix: what the names in the file begin with; those of the module do not.
        others: the part of the module's state that is not in the file.

    Raises:
        StoreError: as `load_tensors`, or the tensors do not fit this module.
    """
    read = {name.removeprefix(prefix): tensor for name, tensor in load_tensors(path).items()}
    tensors = {**(others or {}), **read}
    parameters = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal parameters
        parameters += 1
        if parameters > 2 * len(tensors) + 16:  # a parameter may be registered twice, as where embeddings are tied
            raise StoreError(f"{path}: its {len(tensors)} tensors are too few for the sizes beside it")

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            module = build()
    finally:
        hook.remove()
    wanted = module.state_dict()
    name = type(module).__name__
    if odd := sorted(wanted.keys() ^ tensors.keys()):
        raise StoreError(
            f"{path}: not the weights of a {name} ({odd[0]} is {'' if odd[0] in tensors else 'not '}there)"
        )
    for key, tensor in tensors.items():
        if tensor.shape != wanted[key].shape:
            raise StoreError(f"{path}: not the weights of a {name} of the sizes beside it ({key} has shape "
                             f"{list(tensor.shape)}, not {list(wanted[key].shape)})")  # fmt: skip
    derived = sum(buffer.numel() for _, buffer in module.named_buffers())
    if derived > MOST_DERIVED:
        raise StoreError(f"{path}: a {name} of the sizes beside it needs tables of {derived:,} numbers")
    return read
