"""Whole models: tokens in, logits out.

LockingDecoderModel   a GPT that can be taught, later and cheaply, to look at what any encoder encoded
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lockdec.errors import ConfigError, LockdecError
from lockdec.transformer.configuration import CrossAttentionConfig, DecoderConfig, GenerationConfig
from lockdec.transformer.encoded import Encoded
from lockdec.transformer.generation import SpecialTokens, generate
from lockdec.transformer.layers import CrossAttentionLook, DecoderCache, DecoderStack, LockingDecoder
from lockdec.transformer.positional import TokenEmbedding

__all__ = ["CrossAttentionConfig", "DecoderConfig", "Encoded", "LockingDecoderModel"]


class AutoregressiveModel(nn.Module, ABC):
    """A decoder over tokens, each predicted from those before it and from an encoded input.

    Sequences are padded on the right. No position looks ahead, so padding is invisible to real positions and
    needs no mask; what is computed at padding itself means nothing.
    """

    config: DecoderConfig
    embedding: TokenEmbedding

    @property
    @abstractmethod
    def stack(self) -> DecoderStack:
        """The decoder layers."""

    @abstractmethod
    def admit(self, encoded: Encoded | None) -> Encoded | None:
        """The encoded input as the layers may see it; LockdecError if it is missing or does not fit."""

    def hidden(
        self, tokens: Int[Tensor, "b t"], encoded: Encoded | None = None
    ) -> Float[Tensor, "b t d_model"]:
        """The last layer's output at every position; `logits` makes predictions of any part of it.

        Raises:
            LockdecError: the sequence is longer than max_len; the encoded input is missing or does not fit.
        """
        hidden: Tensor = self.stack(self.embedding(tokens), self.admit(encoded))
        return hidden

    def logits(self, hidden: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n vocab"]:
        """Predictions of the next token from hidden states."""
        return self.embedding.logits(hidden)

    def forward(
        self, tokens: Int[Tensor, "b t"], encoded: Encoded | None = None
    ) -> Float[Tensor, "b t vocab"]:
        """Predictions of the next token at every position."""
        return self.logits(self.hidden(tokens, encoded))

    def cache(self, encoded: Encoded | None, rows: int, max_len: int) -> DecoderCache:
        """An empty cache for `step`: room for `rows` sequences of max_len tokens, and what they look at."""
        return self.stack.cache(self.admit(encoded), rows, max_len, self.embedding.tokens.weight)

    def step(self, tokens: Int[Tensor, "b t"], cache: DecoderCache) -> Float[Tensor, "b vocab"]:
        """Add the next t tokens to the cache and predict the one after them."""
        hidden: Tensor = self.stack(self.embedding(tokens, cache.length), cache=cache)
        return self.logits(hidden[:, -1])

    @torch.inference_mode()
    def generate(
        self,
        encoded: Encoded,
        *,
        bos_id: int,
        eos_id: int,
        pad_id: int,
        max_new_tokens: int = 24,
        min_new_tokens: int = 0,
        strategy: str = "greedy",
    ) -> Int[Tensor, "b n"]:
        """Write one sequence for every encoded input.

        Args:
            encoded: what to write about.
            bos_id, eos_id, pad_id: the tokens that start a sequence, end it and fill what follows.
            max_new_tokens, min_new_tokens: bounds on the length, the end token included in the first only.
            strategy: greedy.

        Returns:
            The new tokens, without bos and with eos where it was produced, padded to the longest sequence.

        Raises:
            LockdecError: no encoder is attached, or the sequence would be longer than max_len.
        """
        config = GenerationConfig(strategy, max_new_tokens, min_new_tokens)
        config.check()
        return generate(self, encoded, SpecialTokens(bos_id, eos_id, pad_id), config)


class LockingDecoderModel(AutoregressiveModel):
    """A GPT whose layers each own a place for cross-attention, which is locked.

    Born, it has no cross-attention parameters. `attach` draws them, `unlock` lets the layers look, and `lock`
    gives the GPT back, bit by bit.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.cross_attention_config: CrossAttentionConfig | None = None
        self.encoder_dim: int | None = None
        self.embedding = TokenEmbedding(config)
        self.decoder = LockingDecoder(config)

    @property
    def stack(self) -> DecoderStack:
        """The decoder layers."""
        return self.decoder

    @property
    def locked(self) -> bool:
        """Whether it ignores encoders."""
        return self.decoder.locked

    @property
    def attached(self) -> bool:
        """Whether it has cross-attention parameters."""
        return self.decoder.attached

    def attach(self, config: CrossAttentionConfig, encoder_dim: int) -> None:
        """Draw fresh cross-attention parameters for encoder states of width encoder_dim; locked.

        Raises:
            ConfigError: the config is impossible, or names a layer that is not there.
        """
        config.check()
        if encoder_dim < 1:
            raise ConfigError(f"encoder_dim={encoder_dim}: use the width of the encoder's states, at least 1")
        self.decoder.attach(config, encoder_dim)
        self.decoder.to(self.embedding.tokens.weight)
        self.cross_attention_config, self.encoder_dim = config, encoder_dim

    def unlock(self) -> None:
        """Let the layers look; LockdecError if nothing is attached or what is can never learn."""
        self.decoder.unlock()

    def lock(self) -> None:
        """Be the pretrained GPT again; the cross-attention parameters stay."""
        self.decoder.lock()

    def cross_attention_parameters(self) -> dict[str, nn.Parameter]:
        """What finetuning trains, by name in the state dict."""
        return {name: p for name, p in self.named_parameters() if ".cross_attention." in name}

    def freeze_decoder(self) -> None:
        """Let gradients reach the cross-attention parameters only."""
        self.requires_grad_(False)
        for parameter in self.cross_attention_parameters().values():
            parameter.requires_grad_(True)

    def admit(self, encoded: Encoded | None) -> Encoded | None:
        """The encoded input, or None while locked; LockdecError if it is missing or of another width."""
        if self.locked:
            return None
        if encoded is None:
            raise LockdecError("an unlocked decoder needs an encoded input: pass one, or call lock()")
        if encoded.states.shape[-1] != self.encoder_dim:
            raise LockdecError(
                f"the encoder's states are {encoded.states.shape[-1]} wide, but cross-attention was attached "
                f"with encoder_dim={self.encoder_dim}: attach it with the width of this encoder"
            )
        return encoded

    def cache(self, encoded: Encoded | None, rows: int, max_len: int) -> DecoderCache:
        """An empty cache for `step`; LockdecError if no encoder was ever attached."""
        if not self.attached:
            raise LockdecError(
                "generation before attach(): call attach(CrossAttentionConfig(...), encoder_dim) first"
            )
        return super().cache(encoded, rows, max_len)

    @torch.inference_mode()
    def look(self, tokens: Int[Tensor, "b t"], encoded: Encoded) -> list[CrossAttentionLook]:
        """What each layer with cross-attention looks at while reading tokens; LockdecError while locked."""
        if self.locked:
            raise LockdecError("a locked decoder looks at nothing: call unlock() first")
        self.admit(encoded)
        return self.decoder.look(self.embedding(tokens), encoded)
