"""The contract of all encoders: frozen, identified by a fingerprint, and one call from inputs to states."""

from __future__ import annotations

import hashlib
from abc import ABC, ABCMeta, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

import numpy as np
import torch
from torch import nn

from lockdec.data.captions import CaptionSet, Input, Modality, digest
from lockdec.errors import ConfigError, DataError, LockdecError
from lockdec.runtime.memory import is_out_of_memory
from lockdec.store.tensors import fingerprinted
from lockdec.transformer.encoded import Encoded

__all__ = ["Encoded", "Encoder", "Input", "Modality", "PretrainedHere", "encode_named", "rehearse"]

Frozen = TypeVar("Frozen", bound="Encoder")
_MISSING = object()
_NAMED = 5  # inputs of a batch that an error names


class _FrozenWhenBuilt(ABCMeta):
    """Freezes an encoder after its constructor has run, so that no subclass can forget to do so.

    Raises:
        ConfigError: the class lacks something of the contract, or an attribute is not what the contract says.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if missing := sorted(cls.__abstractmethods__):
            raise ConfigError(f"encoder: {cls.__name__} does not define {' and '.join(missing)}, as an Encoder has to")
        encoder = super().__call__(*args, **kwargs)
        if "_parameters" not in vars(encoder):
            raise ConfigError(f"encoder: {cls.__name__}.__init__ has to call super().__init__() first")
        _require_attributes(encoder)
        encoder.groups = encoder.groups or (encoder.dim,)
        return nn.Module.requires_grad_(encoder, False).eval()


def _require_attributes(encoder: Any) -> None:
    dim = getattr(encoder, "dim", None)
    rules: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
        ("modality", lambda given: given in get_args(Modality), f"one of {', '.join(get_args(Modality))}"),
        ("dim", _counts, "the number of channels of a state"),
        ("rate", lambda given: given is None or _counts(given), "samples a second, or None where inputs are no sounds"),
        ("seconds", lambda given: given is None or given > 0, "how much of a sound it hears, or None for all of it"),
        ("groups", lambda given: not given or sum(given) == dim, f"numbers of channels that add up to `dim`, {dim}"),
        ("apart", lambda given: not given or sum(given) == dim, f"numbers of channels that add up to `dim`, {dim}"),
    )
    for name, right, wanted in rules:
        given = getattr(encoder, name, _MISSING)
        try:
            fits = given is not _MISSING and right(given)
        except (TypeError, ValueError):  # no number, or no sequence of numbers
            fits = False
        if not fits:
            has = f"no `{name}`" if given is _MISSING else f"{name}={given!r}"
            raise ConfigError(f"encoder: {type(encoder).__name__} has {has}; it has to be {wanted}")


def _counts(given: Any) -> bool:
    return isinstance(given, Integral) and not isinstance(given, bool) and int(given) >= 1


class Encoder(nn.Module, ABC, metaclass=_FrozenWhenBuilt):
    """A pretrained network that maps inputs to sequences of states and is never trained.

    A subclass loads its weights and sets `dim` in its constructor, and defines `preprocess`, `forward` and `settings`.
    Up to rounding, the states of an input must not depend on the other inputs in its batch.

    Attributes:
        modality: of its inputs: RGB images, strings, arrays, or several of these for each example.
        dim: channels of a state.
        rate: samples a second of the sounds that it hears; None where its inputs are no sounds.
        seconds: how much of a sound it hears; None for all of it.
        groups: how many of these channels come from each source (such as a layer), in order; each group is normalised
            separately. One group unless a subclass sets several.
        apart: of several encoders side by side, the channels of each: a state has zeros in all but those of one. Empty
            for a single encoder.
        frozen: always true: parameters have no gradient, and the network stays in evaluation mode.
    """

    modality: Modality
    frozen: ClassVar[Literal[True]] = True
    dim: int
    rate: int | None = None
    seconds: int | None = None
    groups: tuple[int, ...] = ()
    apart: tuple[int, ...] = ()

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Everything apart from the weights that decides the states (preprocessing, layers), as plain values."""

    @abstractmethod
    def preprocess(self, inputs: Sequence[Input]) -> Any:
        """The input of `forward`: a tensor, or several in lists, tuples or mappings.

        They may be on the CPU; `encode` moves them to the device of the encoder.
        """

    @abstractmethod
    def forward(self, batch: Any) -> Encoded:
        """The states of a preprocessed batch."""

    def labels(self, given: Input) -> Sequence[str] | None:
        """What each state of an input stands for, as a text to show; None where that has no name, as by default.

        The labels of a text are the words or pieces of words that its states encode.
        """
        return None

    def reads_whole(self, given: Input) -> bool:
        """Whether no end of an input is left out for being too long: by default, that of sounds beyond `seconds`."""
        if self.rate is None or self.seconds is None or not isinstance(given, np.ndarray):
            return True
        return len(given) <= self.seconds * self.rate

    def check(self, data: CaptionSet) -> None:
        """Raise DataError, before any work, if some inputs of this data cannot be encoded; by default, all can."""
        return

    def encode(self, inputs: Sequence[Input]) -> Encoded:
        """The states of inputs, in float32; padding, if there is any, is masked."""
        # Not inference_mode, since its tensors cannot be used in training later.
        with torch.no_grad():
            encoded: Encoded = self(_moved(self.preprocess(inputs), _device(self)))
        return encoded

    def __getattr__(self, name: str) -> Any:
        declared = getattr(type(self), name, None)
        compute = declared.fget if isinstance(declared, property) else getattr(declared, "func", None)
        if compute is not None:  # of a property, or of a cached one
            return compute(self)  # it has raised an AttributeError of its own, which Module would hide: again
        return super().__getattr__(name)

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of weights and settings; computed on every access, so that it reflects all changes."""
        settings = self.settings
        try:
            own = digest([type(self).__qualname__, dict(settings)])
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"encoder: {type(self).__name__}.settings has to be a property that gives a mapping of plain values: "
                f"numbers, texts and lists of them ({error})"
            ) from error
        total = hashlib.sha256(own.encode())
        for name, value, content in fingerprinted(self.state_dict()):
            total.update(f"\0{name} {value.dtype} {list(value.shape)}\0".encode())
            total.update(content)
        return total.hexdigest()

    def train(self: Frozen, mode: bool = True) -> Frozen:
        """Stay in evaluation mode, whatever `mode` is: a Trainer calls this on all its submodules."""
        return super().train(False)

    def requires_grad_(self: Frozen, requires_grad: bool = True) -> Frozen:
        """Stay without gradients, whatever `requires_grad` is."""
        return super().requires_grad_(False)


def rehearse(encoder: Encoder, inputs: Mapping[str, Input]) -> None:
    """Encode a few inputs, by their ids, and see whether the result is what the contract says.

    Raises:
        ConfigError: it is not; the text says what the encoder gave, and what it should give.
        DataError: an input cannot be encoded, or a state is not finite; the text names the input.
    """
    name, count, encoded = type(encoder).__name__, len(inputs), encode_named(encoder, inputs)
    if not isinstance(encoded, Encoded):
        raise ConfigError(f"encoder: {name}.forward returned {type(encoded).__name__}; it has to return an Encoded")
    states, mask = encoded.states, encoded.mask
    given, wanted = tuple(states.shape), f"({count} inputs, states, {encoder.dim} channels)"
    if len(given) != 3 or (given[0], given[2]) != (count, encoder.dim):
        raise ConfigError(f"encoder: {name} gave states of shape {given}; `dim` says {wanted}")
    if not states.is_floating_point():
        raise ConfigError(f"encoder: {name} gave states of type {states.dtype}; they have to be floating-point numbers")
    if mask.dtype != torch.bool or mask.shape != states.shape[:2]:
        raise ConfigError(
            f"encoder: {name} gave a mask of type {mask.dtype} and shape {tuple(mask.shape)}; it has to be "
            f"torch.bool, {given[:2]}, and true where a state is real"
        )
    if not mask.any(dim=1).all():
        raise ConfigError(f"encoder: {name} gave an input no state; at least one has to be real in the mask")
    for row, given_id in enumerate(inputs):
        if not states[row][mask[row]].isfinite().all():
            raise DataError(f"input {given_id!r}: its encoder states are not finite numbers")


def encode_named(encoder: Encoder, inputs: Mapping[str, Input]) -> Encoded:
    """The states of inputs, by their ids. What the encoder raises names the input, or all where none alone raises it.

    Raises:
        DataError: an input cannot be encoded; the text begins with its id. Another error of the encoder's code has the
            id in a note.
    """
    try:
        return encoder.encode(list(inputs.values()))
    except Exception as error:
        if is_out_of_memory(error) or (isinstance(error, LockdecError) and not isinstance(error, DataError)):
            raise
        problem = error
    broken = "CUDA error" in str(problem)  # a device that every later call finds broken
    if len(inputs) > 1 and not broken:
        for name, given in inputs.items():
            encode_named(encoder, {name: given})
    more = len(inputs) - _NAMED
    names = ", ".join(map(repr, list(inputs)[:_NAMED])) + (f" and {more} more" if more > 0 else "")
    which = f"input {names}" if len(inputs) == 1 else f"inputs {names}"
    if isinstance(problem, DataError):
        raise DataError(f"{which}: {problem}") from problem
    problem.add_note(f"raised while encoding {which}")
    raise problem


def _device(encoder: nn.Module) -> torch.device:
    """The device of its weights; the CPU if it has none."""
    return next((weight.device for weight in chain(encoder.parameters(), encoder.buffers())), torch.device("cpu"))


def _moved(batch: Any, device: torch.device) -> Any:
    """The batch with all its tensors moved to this device."""
    if hasattr(batch, "to"):  # a tensor, or a wrapper that some library puts around several
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: _moved(part, device) for name, part in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_moved(part, device) for part in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(_moved(part, device) for part in batch)
    return batch


class PretrainedHere(ABC):
    """A placeholder for an encoder that a stage of the same pipeline pretrains; `open` gives the encoder afterwards.

    Its settings are in the config and its weights in the artifact of `stage`. Both are part of the key of every stage
    that uses it, so it needs no fingerprint before it has weights.

    Attributes:
        modality: of the inputs of the encoder.
        stage: the name of the stage whose artifact contains the weights.
    """

    modality: ClassVar[Modality]
    stage: str

    @abstractmethod
    def open(self, folder: Path) -> Encoder:
        """The encoder, with the weights in the folder of that artifact.

        Raises:
            ConfigError: its settings do not fit the pretrained weights.
        """

    def groups_for(self, sizes: Any) -> tuple[int, ...] | None:
        """`Encoder.groups` of the encoder that `open` gives; None where they are not known before it is pretrained.

        Args:
            sizes: of the network that `stage` pretrains, from its config.

        Raises:
            ConfigError: its settings do not fit these sizes.
        """
        return None
