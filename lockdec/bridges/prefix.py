"""Soft prompts: embeddings, made of encoder states, that stand before the tokens of a frozen language model."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lockdec.errors import ConfigError, LockdecError
from lockdec.transformer.bridge import Bridge
from lockdec.transformer.configuration import DecoderConfig
from lockdec.transformer.encoded import Encoded
from lockdec.transformer.plugs import PluggableModel


def pooled(encoded: Encoded) -> Float[Tensor, "b d"]:
    """The mean of the real states of each input; zeros where it has none."""
    real = encoded.mask.unsqueeze(-1).to(encoded.states)
    return (encoded.states * real).sum(1) / real.sum(1).clamp(min=1)


@dataclass(eq=False, kw_only=True)
class Prefix(Bridge):
    """A map from the mean of an input's states to k embeddings, which is all that is trained.

    As in Frozen (Tsimpoukelli et al. 2021) and ClipCap, the whole input is one vector first, so that k does not depend
    on how many states the encoder has.

    Attributes:
        length: k, the number of embeddings.
    """

    version: ClassVar[int] = 2
    length: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 1:
            raise ConfigError(f"bridge.length={self.length}: use at least 1 embedding")
        self._takes = 0

    @property
    def positions(self) -> int:
        return self._takes

    def draw(self, decoder: PluggableModel, encoder_dim: int) -> None:
        self.encoder_dim = encoder_dim
        relative = isinstance(decoder.config, DecoderConfig) and decoder.config.position == "rope"
        self._takes = self.length if relative else 0
        self.map = self.mapping(encoder_dim, self.length * decoder.config.d_model)

    @abstractmethod
    def mapping(self, inputs: int, outputs: int) -> nn.Module:
        """The map, freshly drawn."""

    def soft_prompt(self, encoded: Encoded) -> Float[Tensor, "b k d_model"]:
        embeddings: Tensor = self.map(pooled(encoded))
        return embeddings.view(len(embeddings), self.length, -1)


@dataclass(eq=False, kw_only=True)
class LinearPrefix(Prefix):
    """A linear map (Frozen, Tsimpoukelli et al. 2021).

    Attributes:
        rank: of the map, which is then a product of two; None for a single matrix.
    """

    kind: ClassVar[str] = "prefix_linear"
    sized_by: ClassVar[str | None] = "rank"
    rank: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank is not None and self.rank < 1:
            raise ConfigError(f"bridge.rank={self.rank}: use at least 1, or null for a full matrix")

    @property
    def largest(self) -> int:
        outputs = next(weight for weight in reversed(list(self.map.parameters())) if weight.ndim == 2).shape[0]
        return min(self.encoder_dim, outputs)  # the rank of a full matrix

    def mapping(self, inputs: int, outputs: int) -> nn.Module:
        if self.rank is None:
            return nn.Linear(inputs, outputs)
        return nn.Sequential(nn.Linear(inputs, self.rank, bias=False), nn.Linear(self.rank, outputs))


@dataclass(eq=False, kw_only=True)
class MLPPrefix(Prefix):
    """Two layers with a tanh between them (ClipCap, Mokady et al. 2021, its MLP mapping network).

    Attributes:
        width: of the hidden layer; None for half the width of all embeddings together, as ClipCap has it.
    """

    kind: ClassVar[str] = "prefix_mlp"
    sized_by: ClassVar[str | None] = "width"
    width: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width is not None and self.width < 1:
            raise ConfigError(f"bridge.width={self.width}: use at least 1, or null for half the embeddings' width")

    def mapping(self, inputs: int, outputs: int) -> nn.Module:
        width = outputs // 2 if self.width is None else self.width
        return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, outputs))


@dataclass(eq=False, kw_only=True)
class StatePrefix(Prefix):
    """An embedding for each state, mapped by itself: linearly (LiMBeR), or by a hidden layer (LLaVA-1.5).

    As in Merullo et al. 2022 and Liu et al. 2023, whose encoders give as many states for every picture.

    A masked state has an embedding of zeros, so that the prompts of all inputs are equally long.

    Attributes:
        length: k, the most states that an input has.
        width: of the hidden layer; None for a linear map.
    """

    kind: ClassVar[str] = "prefix_states"
    sized_by: ClassVar[str | None] = "width"
    length: int = 64
    width: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width is not None and self.width < 1:
            raise ConfigError(f"bridge.width={self.width}: use at least 1, or null for a linear map")

    def mapping(self, inputs: int, outputs: int) -> nn.Module:
        each = outputs // self.length
        if self.width is None:
            return nn.Linear(inputs, each)
        return nn.Sequential(nn.Linear(inputs, self.width), nn.GELU(), nn.Linear(self.width, each))

    def soft_prompt(self, encoded: Encoded) -> Float[Tensor, "b k d_model"]:
        missing = self.length - encoded.states.shape[1]
        if missing < 0:
            raise LockdecError(
                f"bridge.length={self.length}: an input has {encoded.states.shape[1]} states; give as many embeddings"
            )
        embeddings: Tensor = self.map(encoded.states) * encoded.mask.unsqueeze(-1).to(encoded.states)
        return F.pad(embeddings, (0, 0, 0, missing))
