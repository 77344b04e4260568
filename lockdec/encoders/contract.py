"""What every encoder is: frozen, identified by a fingerprint, and one call from inputs to states."""

from __future__ import annotations

import hashlib
from abc import ABC, ABCMeta, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import nn

from lockdec.data.captions import CaptionSet, Input, Modality, digest
from lockdec.transformer.encoded import Encoded

__all__ = ["Encoded", "Encoder", "Input", "Modality", "PretrainedHere"]

Frozen = TypeVar("Frozen", bound="Encoder")


class _FrozenWhenBuilt(ABCMeta):
    """Freezes an encoder once its whole constructor has run, so that no subclass can forget to."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        encoder = super().__call__(*args, **kwargs)
        encoder.groups = encoder.groups or (encoder.dim,)
        return nn.Module.requires_grad_(encoder, False).eval()


class Encoder(nn.Module, ABC, metaclass=_FrozenWhenBuilt):
    """A pretrained network that turns inputs into rows of states and never trains.

    A subclass loads its weights and sets `dim` in its constructor, and defines `preprocess`, `forward` and
    `settings`.
    Encoding an input gives the same states whichever inputs share its batch, up to rounding.

    Attributes:
        modality: what it reads: RGB images, strings or arrays.
        dim: width of a state.
        groups: how many of its channels come from each source (a layer, a modality), in order; each is normalised
            by itself. One group unless a subclass says otherwise.
        frozen: always true: parameters take no gradient and the network stays in evaluation mode.
    """

    modality: Modality
    frozen: ClassVar[Literal[True]] = True
    dim: int
    groups: tuple[int, ...] = ()

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """What decides the states beside the weights (preprocessing, layers), as plain values."""

    @abstractmethod
    def preprocess(self, inputs: Sequence[Input]) -> Any:
        """What the network reads: a tensor, or several in lists, tuples or mappings.

        They may stay on the CPU; `encode` carries them to the encoder's device.
        """

    @abstractmethod
    def forward(self, batch: Any) -> Encoded:
        """The states of a preprocessed batch."""

    def check(self, data: CaptionSet) -> None:
        """Raise DataError where inputs of this data cannot be encoded, before any work; as a rule all can."""
        return

    def encode(self, inputs: Sequence[Input]) -> Encoded:
        """The states of some inputs, in float32; padding, where an encoder pads, is masked."""
        # Not inference_mode: its tensors may not take part in a later training step.
        with torch.no_grad():
            encoded: Encoded = self(_carried(self.preprocess(inputs), _device(self)))
        return encoded

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of weights and settings; computed each time, so a changed weight always shows."""
        total = hashlib.sha256(digest([type(self).__qualname__, dict(self.settings)]).encode())
        for name, value in sorted(self.state_dict().items()):
            total.update(f"\0{name} {value.dtype} {list(value.shape)}\0".encode())
            # A view of the bytes, whatever the dtype; numpy knows no bfloat16.
            total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return total.hexdigest()

    def train(self: Frozen, mode: bool = True) -> Frozen:
        """Stay in evaluation mode, whatever `mode` says: a Trainer calls this on everything it holds."""
        return super().train(False)

    def requires_grad_(self: Frozen, requires_grad: bool = True) -> Frozen:
        """Stay without gradients, whatever is asked."""
        return super().requires_grad_(False)


def _device(encoder: nn.Module) -> torch.device:
    """Where its weights are; the CPU where it has none."""
    return next((weight.device for weight in chain(encoder.parameters(), encoder.buffers())), torch.device("cpu"))


def _carried(batch: Any, device: torch.device) -> Any:
    """The batch with all its tensors on this device."""
    if hasattr(batch, "to"):  # a tensor, or what somebody's library wraps around several
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: _carried(part, device) for name, part in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_carried(part, device) for part in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(_carried(part, device) for part in batch)
    return batch


class PretrainedHere(ABC):
    """What stands in a config for an encoder that a stage of the same pipeline pretrains: opened once that has ended.

    Its own settings stand in the config and its weights in the artifact of `stage`, and both are part of the key of
    whatever uses it; so it needs no fingerprint before there are weights.

    Attributes:
        modality: what the encoder reads.
        stage: the name of the stage whose artifact holds the weights.
    """

    modality: ClassVar[Modality]
    stage: str

    @abstractmethod
    def open(self, folder: Path) -> Encoder:
        """The encoder with the weights of the stage's artifact in this folder.

        Raises:
            ConfigError: its settings do not fit what was pretrained.
        """
