"""What the families of checkpoints share: loading one, reading its options, and what is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lockdec.errors import LockdecError
from lockdec.transformer.configuration import CrossAttentionConfig, DecoderConfig

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A decoder as `LockingDecoderModel` takes it.

    Attributes:
        weights: the state dict, by our names.
        dtype: of the weights.
        cross_attention: its cross-attention, over states of width d_model; None if it has none.
    """

    config: DecoderConfig
    weights: dict[str, Tensor]
    dtype: torch.dtype
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

    def choose(self, name: str, ours: Mapping[str, str]) -> str:
        """Our name for the option's value; LockdecError if there is none."""
        self.only(name, *ours)
        return ours[self.get(name)]


class Family(NamedTuple):
    """How the checkpoints of a family become ours.

    Attributes:
        config: our config, from their options; LockdecError for an option that is not supported.
        weights: the state dict by our names, from theirs; an untied output projection is added by `read`.
        cross_attention: the config of their cross-attention, and its weights by our names; None if they never have any.
    """

    config: Callable[[Options], DecoderConfig]
    weights: Callable[[Weights, DecoderConfig], dict[str, Tensor]]
    cross_attention: Callable[[Weights, DecoderConfig], tuple[CrossAttentionConfig, dict[str, Tensor]]] | None = None


def load(source: str) -> nn.Module:
    """A `transformers` language model in float32, from a folder or hub id; no code that comes with it is run.

    Raises:
        LockdecError: transformers is not installed, or the source is no complete decoder in safetensors.
    """
    try:
        from transformers import AutoModelForCausalLM
    except ModuleNotFoundError as error:
        raise LockdecError(f"{source}: importing a decoder needs transformers (pip install transformers)") from error
    safely = {"use_safetensors": True, "trust_remote_code": False}
    loader: Any = AutoModelForCausalLM
    try:
        model, report = loader.from_pretrained(source, dtype=torch.float32, output_loading_info=True, **safely)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise LockdecError(f"{source}: no decoder in safetensors can be read from it ({reason})") from error
    if report["missing_keys"]:
        raise LockdecError(f"{source}: the checkpoint lacks {', '.join(sorted(report['missing_keys']))}")
    loaded: nn.Module = model
    return loaded
