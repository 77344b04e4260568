"""Whole models: tokens in, logits out.

    EncoderModel          reads a sequence in both directions
    MaskedLanguageModel   an encoder that predicts masked tokens
    DecoderModel          generates a sequence while it attends to an encoded input
    TransformerModel      the two joined: the book's translator
    LockingDecoderModel   a GPT that can be taught, later and cheaply, to attend to what any encoder encoded

Masks are true where there is a token. Sequences are padded on the right.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lockdec.errors import LockdecError
from lockdec.transformer.autoregressive import AutoregressiveModel, Prefix, StackedModel
from lockdec.transformer.configuration import (
    CrossAttentionConfig,
    DecoderConfig,
    EncoderConfig,
    GenerationConfig,
)
from lockdec.transformer.encoded import Encoded, PlugBatch, PlugRows
from lockdec.transformer.layers import Decoder, Encoder
from lockdec.transformer.locking import LockingDecoderModel, LockingModel
from lockdec.transformer.places import CrossAttentionMap
from lockdec.transformer.plugs import UNNAMED, Plug
from lockdec.transformer.positional import TokenEmbedding

__all__ = [
    "UNNAMED",
    "AutoregressiveModel",
    "CrossAttentionConfig",
    "CrossAttentionMap",
    "DecoderConfig",
    "DecoderModel",
    "Encoded",
    "EncoderConfig",
    "EncoderModel",
    "GenerationConfig",
    "LockingDecoderModel",
    "LockingModel",
    "MaskedLanguageModel",
    "Plug",
    "PlugBatch",
    "PlugRows",
    "Prefix",
    "StackedModel",
    "TransformerModel",
]


class EncoderModel(nn.Module):
    """Tokens to states: every position attends to the whole sequence."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.embedding = TokenEmbedding(config)
        self.encoder = Encoder(config)

    def forward(
        self, tokens: Int[Tensor, "b s"], mask: Bool[Tensor, "b s"] | None = None
    ) -> Float[Tensor, "b s d_model"]:
        """The states of all positions; those of padding are meaningless."""
        states: Tensor = self.encoder(self.embedding(tokens), mask)
        return states

    def encode(self, tokens: Int[Tensor, "b s"], mask: Bool[Tensor, "b s"]) -> Encoded:
        """The states as a decoder takes them."""
        return Encoded(self(tokens, mask), mask)


class MaskedLanguageModel(nn.Module):
    """An encoder that predicts, at any position, the token that belongs there (Devlin et al. 2019)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.encoder = EncoderModel(config)

    def logits(self, states: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n vocab"]:
        """Predictions from any of the states, such as those of the masked tokens only."""
        return self.encoder.embedding.logits(states)

    def forward(
        self, tokens: Int[Tensor, "b s"], mask: Bool[Tensor, "b s"] | None = None
    ) -> Float[Tensor, "b s vocab"]:
        """Predictions at every position."""
        return self.logits(self.encoder(tokens, mask))


class DecoderModel(StackedModel):
    """Generates a sequence while it attends to an encoded input.

    Args:
        encoder_dim: width of the encoder's states.
    """

    def __init__(self, config: DecoderConfig, encoder_dim: int) -> None:
        super().__init__()
        config.check()
        self.config = config
        self._encoder_dim = encoder_dim
        self.embedding = TokenEmbedding(config)
        self.decoder = Decoder(config, encoder_dim)

    @property
    def encoder_dim(self) -> int:
        """The width of the states that it attends to."""
        return self._encoder_dim

    def admit(self, encoded: Encoded | PlugBatch | None) -> Encoded:
        """The encoded input; LockdecError if it is missing or of another width, or a batch of several plugs."""
        if isinstance(encoded, PlugBatch):
            raise LockdecError("this decoder has no plugs: pass an Encoded")
        return self._fitting(encoded, "pass one")


class TransformerModel(nn.Module):
    """An encoder and a decoder joined, as in the book: a sequence in, a sequence out (Vaswani et al. 2017).

    The padding mask hides the source's padding from both; the look-ahead mask hides the target's future.

    Args:
        source, target: the encoder's and the decoder's sizes.
        pad_id: the token that pads the source.
    """

    def __init__(self, source: EncoderConfig, target: DecoderConfig, pad_id: int = 0) -> None:
        super().__init__()
        self.pad_id = pad_id
        self.encoder = EncoderModel(source)
        self.decoder = DecoderModel(target, source.d_model)

    def encode(self, source: Int[Tensor, "b s"]) -> Encoded:
        """The states of the source."""
        return self.encoder.encode(source, source != self.pad_id)

    def forward(self, source: Int[Tensor, "b s"], target: Int[Tensor, "b t"]) -> Float[Tensor, "b t vocab"]:
        """Predictions of the target's next token at every position."""
        logits: Tensor = self.decoder(target, self.encode(source))
        return logits

    def generate(self, source: Int[Tensor, "b s"], **options: Any) -> Int[Tensor, "b n"]:
        """Generate one sequence for every source; options as in `DecoderModel.generate`."""
        with torch.no_grad():
            encoded = self.encode(source)
        return self.decoder.generate(encoded, **options)
