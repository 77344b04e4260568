"""Tokens and their positions. Attention treats its input as a set, so the vectors themselves carry the position."""

from __future__ import annotations

import math
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lockdec.errors import LockdecError
from lockdec.transformer.configuration import RopeScaling, TransformerConfig
from lockdec.transformer.fast import Dropout


def sinusoids(max_len: int, d_model: int) -> Float[Tensor, "max_len d_model"]:
    """sin and cos at wavelengths from 2 pi to 10000 * 2 pi (Vaswani et al. 2017, 3.5); d_model is even."""
    position = torch.arange(max_len, dtype=torch.float64).unsqueeze(1)
    wavelength = torch.exp(torch.arange(0, d_model, 2, dtype=torch.float64) * (math.log(10000.0) / d_model))
    angle = position / wavelength  # (max_len, d_model / 2)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).float()


def _on_meta() -> bool:
    """Whether new tensors have no values; computing with them takes a second to import torch's compiler."""
    return torch.empty(0).is_meta


class LearnedPositions(nn.Module):
    """One learned vector per position."""

    def __init__(self, max_len: int, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(max_len, d_model))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Float[Tensor, "b t d_model"], start: int = 0) -> Float[Tensor, "b t d_model"]:
        """Add the vectors of positions start, start + 1, ... to x."""
        return x + self.weight[start : start + x.shape[1]]


class SinusoidalPositions(nn.Module):
    """One fixed vector per position.

    Embeddings are scaled by sqrt(d_model) first, so that both are of the same scale (Vaswani et al. 2017, 3.4).
    """

    table: Tensor

    def __init__(self, max_len: int, d_model: int) -> None:
        super().__init__()
        self.scale = math.sqrt(d_model)
        self.sizes = (max_len, d_model)
        self.prepare()

    def prepare(self) -> None:
        """Compute the vectors, which are not among the weights; on the meta device, there is only their size."""
        self.register_buffer(
            "table", torch.empty(self.sizes) if _on_meta() else sinusoids(*self.sizes), persistent=False
        )

    def forward(self, x: Float[Tensor, "b t d_model"], start: int = 0) -> Float[Tensor, "b t d_model"]:
        """Scale x and add the vectors of positions start, start + 1, ... to it."""
        return x * self.scale + self.table[start : start + x.shape[1]]


class RotaryPositions(nn.Module):
    """Rotate each pair of channels (i, i + d/2) by an angle proportional to the position (Su et al. 2021).

    The product of a query and a key then depends on their distance, not on their positions.

    Args:
        max_len: positions 0 to max_len - 1 are prepared.
        d_head: size of a head, even.
        theta: the longest wavelength is about 2 pi * theta positions.
        scaling: stretches long wavelengths.
        share: of the channels, the first ones, that are rotated; the others stay (GPT-NeoX).
    """

    cosine: Tensor
    sine: Tensor

    def __init__(
        self,
        max_len: int,
        d_head: int,
        theta: float = 10000.0,
        scaling: RopeScaling | None = None,
        share: float = 1.0,
    ) -> None:
        super().__init__()
        self.max_len, self.theta, self.scaling = max_len, theta, scaling
        self.rotated, self.kept = int(d_head * share), d_head - int(d_head * share)
        self.prepare()

    def prepare(self) -> None:
        """Compute the angles, which are not among the weights; on the meta device, there are only their sizes."""
        size = (self.max_len, self.rotated)
        if _on_meta():
            cosine, sine = torch.empty(size), torch.empty(size)
        else:
            angle = self._angles()
            cosine, sine = angle.cos(), angle.sin()
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def _angles(self) -> Float[Tensor, "max_len rotated"]:
        frequency = self.theta ** -(torch.arange(0, self.rotated, 2, dtype=torch.float32) / self.rotated)
        if (scaling := self.scaling) is not None:
            turns = frequency * (scaling.original_max_len / (2 * math.pi))  # within the original length
            kept = (turns - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency)
            frequency = frequency * torch.lerp(torch.tensor(1 / scaling.factor), torch.tensor(1.0), kept.clamp(0, 1))
        return torch.arange(self.max_len, dtype=torch.float32).outer(frequency).repeat(1, 2)

    def forward(self, x: Float[Tensor, "b heads t d_head"], start: int = 0) -> Float[Tensor, "b heads t d_head"]:
        """Rotate x, which is at positions start, start + 1, ..."""
        here = slice(start, start + x.shape[2])
        cosine, sine = self.cosine[here].to(x.dtype), self.sine[here].to(x.dtype)
        x, others = x[..., : self.rotated], x[..., self.rotated :]
        first, second = x.chunk(2, dim=-1)
        quarter_turn = torch.cat((-second, first), dim=-1)
        turned = x * cosine + quarter_turn * sine
        return torch.cat((turned, others), dim=-1) if self.kept else turned


class TokenEmbedding(nn.Module):
    """Tokens in, logits out: the embedding of the vocabulary and of positions, and the output projection.

    Tied (the usual case), a token's logit is the product of its own vector and the hidden state
    (Press and Wolf 2017); otherwise the output projection has weights of its own.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.max_len, self.group = config.max_len, config.group
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.untied = None if config.tied else nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.positions = self._positions(config)
        self.scale = config.d_model**0.5 if config.scaled_embedding else None
        self.dropout = Dropout(config.dropout)
        # Sinusoids have a fixed scale, so the vectors that they are added to must be as large after scaling.
        std = config.d_model**-0.5 if config.position == "sinusoidal" else 0.02
        nn.init.normal_(self.tokens.weight, std=std)
        if self.untied is not None:
            nn.init.normal_(self.untied.weight, std=0.02)

    @staticmethod
    def _positions(config: TransformerConfig) -> nn.Module | None:
        if config.position == "rope":
            return None  # self-attention rotates its queries and keys instead
        kind = LearnedPositions if config.position == "learned" else SinusoidalPositions
        return kind(config.max_len, config.d_model)

    def forward(self, tokens: Int[Tensor, "b t"], start: int = 0) -> Float[Tensor, "b t d_model"]:
        """The vectors of tokens at positions start, start + 1, ...; LockdecError beyond max_len."""
        return self.placed(self.vectors(tokens), start)

    def vectors(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t d_model"]:
        """The vectors of tokens, wherever they stand."""
        x: Tensor = self.tokens(tokens)
        return x if self.scale is None else x * self.scale

    def placed(self, x: Float[Tensor, "b t d_model"], start: int = 0) -> Float[Tensor, "b t d_model"]:
        """Vectors put at positions start, start + 1, ...; LockdecError beyond max_len."""
        self.require_room(start + x.shape[1])
        if self.positions is not None:
            x = self.positions(x, start)
        return cast(Tensor, self.dropout(x))

    def require_room(self, length: int) -> None:
        """Raise LockdecError if a sequence of this many tokens is longer than max_len."""
        if length > self.max_len:
            raise LockdecError(
                f"a sequence of {length} tokens is longer than {self.group}.max_len={self.max_len}: "
                "shorten it, or build the model with a larger max_len"
            )

    def logits(self, hidden: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n vocab"]:
        """The logit of each token of the vocabulary, for each hidden state."""
        return F.linear(hidden, self.tokens.weight if self.untied is None else self.untied.weight)
