"""What the families of checkpoints share: how their options are read, and what is made of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lockdec.errors import LockdecError
from lockdec.transformer.configuration import CrossAttentionConfig, DecoderConfig

Weights = Mapping[str, Tensor]  # by their names; a tensor is read when it is asked for
Named = Iterator[tuple[str, Tensor]]  # by our names, one after the other, so that they need not all be in memory

# Far above any decoder there is: more is a damaged config, which would ask for terabytes.
MOST_TOKENS, MOST_POSITIONS = 2**24, 2**22

SIZES = {  # arguments of `DecoderConfig`, by the names of nearly all families
    "vocab_size": "vocab_size",
    "max_len": "max_position_embeddings",
    "d_model": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "tied": "tie_word_embeddings",
}


@dataclass(frozen=True)
class Checkpoint:
    """A decoder as `LockingDecoderModel` takes it.

    Attributes:
        weights: reads the state dict, tensor by tensor, by our names.
        cross_attention: its cross-attention, over states of width d_model; None if it has none.
    """

    config: DecoderConfig
    weights: Callable[[], Named]
    cross_attention: CrossAttentionConfig | None


class Options:
    """The options of a checkpoint. One that has no counterpart here is refused by name.

    Args:
        source: what errors call the checkpoint.
        config: of `transformers`.
    """

    def __init__(self, source: str, config: Any) -> None:
        self.source = source
        self.config = config

    def get(self, name: str) -> Any:
        """The option's value."""
        return getattr(self.config, name)

    def only(self, name: str, *supported: object) -> None:
        """Raise LockdecError unless the option has one of these values."""
        if self.get(name) not in supported:
            allowed = " or ".join(str(value) for value in supported)
            raise LockdecError(f"{self.source}: {name}={self.get(name)} is not supported (only {allowed})")

    def require(self, name: str, value: object, supported: object) -> None:
        """Raise LockdecError unless an option inside an option has this value."""
        if value != supported:
            raise LockdecError(f"{self.source}: {name}={value} is not supported (only {supported})")

    def choose(self, name: str, ours: Mapping[str, str]) -> str:
        """Our name for the option's value; LockdecError if there is none."""
        self.only(name, *ours)
        return ours[self.get(name)]

    def sizes(self, **theirs: str) -> dict[str, Any]:
        """The arguments of `DecoderConfig` that every family has.

        Args:
            theirs: what a family calls those that it does not call as in `SIZES`.
        """
        names = SIZES | theirs
        found = {ours: self.get(name) for ours, name in names.items()}
        found["vocab_size"] = self.size(names["vocab_size"], most=MOST_TOKENS)
        found["max_len"] = self.size(names["max_len"], most=MOST_POSITIONS)
        return found

    def head_size(self) -> int | None:
        """The width of a head; None where it is the width of the model divided by the heads."""
        size = getattr(self.config, "head_dim", None)
        return None if size in (None, self.get("hidden_size") / self.get("num_attention_heads")) else int(size)

    def size(self, name: str, most: int) -> int:
        """A whole number from 1 to `most`; LockdecError otherwise."""
        value = self.get(name)
        if type(value) is not int or not 1 <= value <= most:
            raise LockdecError(f"{self.source}: {name}={value} is not a whole number from 1 to {most:,}")
        return value


class Family(NamedTuple):
    """How the checkpoints of a family become ours.

    Attributes:
        config: our config, from their options; LockdecError for an option that is not supported.
        weights: the state dict by our names, from theirs; an untied output projection is added by `read`.
        cross_attention: the config of their cross-attention, and its weights by our names; None if they never have any.
        from_gguf: a tensor as it is in a safetensors file, from its name there, how it is in a GGUF file, and their
            options; None if GGUF files are not read.
    """

    config: Callable[[Options], DecoderConfig]
    weights: Callable[[Weights, DecoderConfig], Named]
    cross_attention: Callable[[Weights, DecoderConfig], tuple[CrossAttentionConfig, Named]] | None = None
    from_gguf: Callable[[str, Tensor, Options], Tensor] | None = None


def layer_weights(theirs: Weights, config: DecoderConfig, place: str, parts: Mapping[str, Sequence[str]]) -> Named:
    """The weights and biases of all layers by our names, as far as they are there.

    Args:
        place: where the layers are in their state dict.
        parts: the names in their layer, by those in ours; projections that share an input are one matrix in ours.
    """
    for layer in range(config.layers):
        for here, there in parts.items():
            for kind in ("weight", "bias"):
                names = [f"{place}.{layer}.{name}.{kind}" for name in there]
                if present := [theirs[name] for name in names if name in theirs]:
                    yield f"decoder.layers.{layer}.{here}.{kind}", torch.cat(present)
