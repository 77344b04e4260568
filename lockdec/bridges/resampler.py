"""A resampler: a few learned queries attend to the encoder's states, and cross-attention attends to the queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from lockdec.errors import ConfigError
from lockdec.transformer.attention import MultiHeadAttention
from lockdec.transformer.bridge import Bridge
from lockdec.transformer.configuration import MOST_LAYERS
from lockdec.transformer.encoded import Encoded
from lockdec.transformer.plugs import PluggableModel


class ResamplerLayer(nn.Module):
    """Queries attend to the states and to themselves, then a feed-forward network, each added to what it reads.

    Args:
        width: of queries and states.
        heads: of attention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        size = width // heads
        self.queries_norm, self.states_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads, size, size, size, bias=False)
        up, down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)
        self.feed_forward = nn.Sequential(nn.LayerNorm(width), up, nn.GELU(), down)

    def forward(
        self, queries: Float[Tensor, "b q width"], states: Float[Tensor, "b s width"], mask: Bool[Tensor, "b s"]
    ) -> Float[Tensor, "b q width"]:
        """The queries after the layer; the mask is true where a state is real."""
        normed = self.queries_norm(queries)
        known = torch.cat((self.states_norm(states), normed), dim=1)  # (b, s + q, width)
        real = F.pad(mask, (0, queries.shape[1]), value=True)
        queries = queries + cast(Tensor, self.attention(normed, known, known, real))
        return queries + cast(Tensor, self.feed_forward(queries))


@dataclass(eq=False, kw_only=True)
class Resampler(Bridge):
    """Flamingo's Perceiver Resampler (Alayrac et al. 2022, 3.1), before low-dimensional cross-attention.

    Keys and values are the states and the queries themselves, and norms precede attention and feed-forward network, as
    there. However many states an input has, cross-attention then attends to `queries` of them.

    Attributes:
        queries: how many are learned.
        width: of the queries; the states are projected to it first.
        layers: of attention and feed-forward network.
        heads: of attention.
    """

    kind: ClassVar[str] = "resampler"
    keeps_layers: ClassVar[bool] = True
    queries: int = 8
    width: int = 64
    layers: int = 2
    heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("queries", "width", "layers", "heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"bridge.{name}={getattr(self, name)}: use at least 1")
        if self.layers > MOST_LAYERS:
            raise ConfigError(f"bridge.layers={self.layers}: use at most {MOST_LAYERS}")
        if self.width % self.heads:
            raise ConfigError(f"bridge.heads={self.heads} does not divide bridge.width={self.width}")

    @property
    def attended_dim(self) -> int:
        return self.width

    def draw(self, decoder: PluggableModel, encoder_dim: int) -> None:
        self.encoder_dim = encoder_dim
        self.project = nn.Linear(encoder_dim, self.width, bias=False)
        self.latents = nn.Parameter(torch.empty(self.queries, self.width))
        nn.init.normal_(self.latents)
        self.stack = nn.ModuleList(ResamplerLayer(self.width, self.heads) for _ in range(self.layers))
        self.norm = nn.LayerNorm(self.width)

    def states(self, encoded: Encoded) -> Encoded:
        states = self.project(encoded.states.to(self.latents))
        queries = self.latents.expand(len(states), -1, -1)
        for layer in self.stack:
            queries = layer(queries, states, encoded.mask)
        mask = encoded.mask.any(1, keepdim=True).expand(-1, self.queries)  # a row without states gets nothing
        return Encoded(self.norm(queries), mask)
