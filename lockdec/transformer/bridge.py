"""What may carry an encoder's states into a decoder beside, or in the place of, cross-attention in its layers."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from lockdec.errors import ConfigError
from lockdec.transformer.encoded import Encoded
from lockdec.transformer.plugs import PluggableModel


@dataclass(eq=False, kw_only=True)
class Bridge(nn.Module, ABC):
    """A module between a frozen encoder and a decoder; `LockingModel.attach_bridge` attaches it.

    A subclass is a dataclass: its fields are its settings, plain values, and `draw` gives it weights. By default a
    bridge puts nothing before the tokens, and works without cross-attention.

    Attributes:
        kind: its name in configs and artifacts, which no other bridge has.
        version: raised when its results change, so that its artifacts are made anew and those of others are not.
        sized_by: the field by which the number of its parameters can be chosen; None where it cannot be.
        keeps_layers: whether the layers below the lowest cross-attention compute the same as without the bridge.
        encoder_dim: the width of the states it was drawn for.
        own: which inputs of the data a batch has, within `leaving_out`; else None.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    sized_by: ClassVar[str | None] = None
    keeps_layers: ClassVar[bool] = False
    encoder_dim: int = dataclasses.field(init=False, default=0)
    own: Any = dataclasses.field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        nn.Module.__init__(self)

    @property
    def settings(self) -> dict[str, Any]:
        """Its fields, by which it can be built again."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}

    @property
    def described(self) -> str:
        """Its kind and its settings, as a user types them."""
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"bridge={self.kind} ({settings})"

    @property
    def positions(self) -> int:
        """How many positions of the decoder its soft prompt takes at most."""
        return 0

    @property
    def start(self) -> int:
        """The position of the first token, where a decoder adds positions to tokens."""
        return 0

    @property
    def attended_dim(self) -> int | None:
        """The width of what cross-attention attends to; None where the bridge works without cross-attention."""
        return None

    @property
    def largest(self) -> int | None:
        """The largest sensible value of `sized_by`; None where there is none. Known once weights are drawn."""
        return None

    def require_hostable(self) -> None:
        """Raise ConfigError where it works inside a decoder's layers or before its tokens."""
        if not self.keeps_layers:
            raise ConfigError(f"bridge={self.kind}: a hosted decoder is kept as it is and takes cross-attention or a "
                              "resampler; import one of a known family (decoder=llama)")  # fmt: skip

    @abstractmethod
    def draw(self, decoder: PluggableModel, encoder_dim: int) -> None:
        """Draw fresh weights from torch's global generator.

        Args:
            decoder: that it will be attached to.
            encoder_dim: the width of the encoder's states.
        """

    def remember(self, means: Float[Tensor, "n d"], captions: Sequence[Sequence[int]], rows: Sequence[int]) -> None:
        """Keep what it needs of the support set, after weights are drawn; by default nothing.

        Args:
            means: of the normalised states of each input.
            captions: their tokens, with BOS and EOS.
            rows: which input of the data each is of.
        """
        return

    @contextmanager
    def leaving_out(self, rows: Int[Tensor, " b"] | None) -> Iterator[None]:
        """Within this context, no input of a batch is given what was remembered of itself.

        Args:
            rows: which input of the data each is; None where none is of the support set.
        """
        self.own = rows
        try:
            yield
        finally:
            self.own = None

    def enter(self, decoder: PluggableModel) -> None:
        """Change what the layers of the decoder compute, where it does that; called when it is unlocked."""
        return

    def leave(self, decoder: PluggableModel) -> None:
        """Undo `enter`; called when it is locked."""
        return

    def soft_prompt(self, encoded: Encoded) -> Float[Tensor, "b k d_model"] | None:
        """Embeddings that stand before the tokens of each input (Lester et al. 2021), as the first layer gets them.

        No positions are added to them, and tokens keep those that they were pretrained at, from `start` on. So a
        decoder whose texts all began at position 0 reads them as it has learned to. Positions that rotate queries and
        keys go on from the prompt to the tokens: they are relative.
        """
        return None

    def states(self, encoded: Encoded) -> Encoded:
        """What cross-attention attends to."""
        return encoded
