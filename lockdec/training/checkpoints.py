"""The checkpoints of an unfinished stage: written whole, sealed, and set aside where they do not fit.

A checkpoint is torch's zip file with a *seal* as the comment of the zip, so torch and zip tools read it as before. The
seal says which artifact and step the checkpoint belongs to, which versions have written it, and the sha256 of the rest.
A stage resumes only from a checkpoint whose seal holds; from any other, wrong weights would be published as right.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lockdec.errors import StoreError
from lockdec.store import CHECKPOINT, DAMAGED, GOOD_CHECKPOINT, UNFINISHED, canonical_json, unused_name
from lockdec.store.writing import write_bytes

_END = struct.Struct("<4s16xH")  # of a zip file: a signature, what is not read here, the length of the comment
_SIGNATURE = b"PK\x05\x06"
_LONGEST_COMMENT = 65_535


class CheckpointIO(TorchCheckpointIO):
    """Reads and writes sealed checkpoints. A kill while one is written leaves the one before it.

    Args:
        owner: stage and key of the artifact that is being made.
    """

    def __init__(self, owner: str) -> None:
        super().__init__()
        self.owner = owner

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        seal = {"owner": self.owner, "step": checkpoint["global_step"], "versions": versions(), "sha256": "0" * 64}
        length = len(canonical_json(seal))
        buffer.seek(-2, io.SEEK_END)
        buffer.write(struct.pack("<H", length))
        seal["sha256"] = hashlib.sha256(buffer.getbuffer()).hexdigest()
        buffer.write(canonical_json(seal).encode())
        write_bytes(Path(path), buffer.getbuffer())

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        return read_checkpoint(Path(path), self.owner)


@cache
def versions() -> dict[str, str]:
    """What a checkpoint depends on: the layout of its parts, and the numbers that the steps after it compute."""
    return {name: version(name) for name in ("lightning", "torch")}


def read_checkpoint(path: Path, owner: str) -> dict[str, Any]:
    """A checkpoint whose seal holds.

    Args:
        owner: stage and key of the artifact that it has to belong to.

    Raises:
        StoreError: it does not fit; the text says why.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    end = content.rfind(_SIGNATURE, max(0, len(content) - _LONGEST_COMMENT - _END.size))
    if end < 0 or end + _END.size > len(content):
        raise StoreError(f"{path}: cut, or not a checkpoint")
    end += _END.size
    wanted = {"owner": owner, "versions": versions(), "sha256": hashlib.sha256(memoryview(content)[:end]).hexdigest()}
    seal = _seal(content[end:])
    if seal is None or _END.unpack(content[end - _END.size : end])[1] != len(content) - end:
        raise StoreError(f"{path}: it has no seal")
    for name, what in (("sha256", "its content has changed"), ("owner", "of another artifact"), ("versions", "")):
        if seal.get(name) != wanted[name]:
            raise StoreError(f"{path}: {what or f'written with {_shown(seal.get(name))}, not {_shown(wanted[name])}'}")
    try:
        checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    # torch raises whatever its readers of zip and of pickle meet; only plain data passes them.
    except (UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: not a checkpoint ({type(error).__name__})") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("global_step") != seal.get("step"):
        raise StoreError(f"{path}: not a checkpoint of step {seal.get('step')}")
    return checkpoint


def usable(path: Path, owner: str, module: L.LightningModule, callbacks: Sequence[L.Callback]) -> bool:
    """Whether training can go on from this checkpoint. One that does not fit is set aside with a warning.

    Args:
        callbacks: whose states it has to hold.
    """
    if not path.exists():
        return False
    try:
        _require_state(path, read_checkpoint(path, owner), module, callbacks)
    except StoreError as error:
        set_aside(path.parent, str(error))
        return False
    return True


def set_aside(folder: Path, why: str) -> None:
    """Move all checkpoints out of the folder of an unfinished artifact, so that its stage starts anew."""
    aside = unused_name(folder, f"{folder.name.removesuffix(UNFINISHED)}{DAMAGED}")
    aside.mkdir()
    for name in (CHECKPOINT, GOOD_CHECKPOINT):
        if (folder / name).exists():
            (folder / name).rename(aside / name)
    warnings.warn(f"{why}; set aside as {aside.name}, and the stage starts anew", stacklevel=2)


def _require_state(
    path: Path, checkpoint: Mapping[str, Any], module: L.LightningModule, callbacks: Sequence[L.Callback]
) -> None:
    state, optimizers, kept = (checkpoint.get(name) for name in ("state_dict", "optimizer_states", "callbacks"))
    own = {name: tensor.shape for name, tensor in module.state_dict().items()}
    if not isinstance(state, dict) or {name: getattr(tensor, "shape", None) for name, tensor in state.items()} != own:
        raise StoreError(f"{path}: not the state of a {type(module).__name__} of this size")
    if not isinstance(optimizers, list) or not optimizers:
        raise StoreError(f"{path}: it has no state of an optimizer")
    if not isinstance(kept, dict) or not all(callback.state_key in kept for callback in callbacks):
        raise StoreError(f"{path}: it has no learning curve")


def _seal(comment: bytes) -> dict[str, Any] | None:
    try:
        seal = json.loads(comment)
    except (ValueError, RecursionError):
        return None
    return seal if isinstance(seal, dict) and canonical_json(seal).encode() == comment else None


def _shown(found: Any) -> str:
    return " ".join(f"{name} {number}" for name, number in found.items()) if isinstance(found, dict) else "?"
