"""What all decoders of tokens share: hidden states, logits, generation with a cache, and our own stack of layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lockdec.errors import LockdecError
from lockdec.transformer.configuration import DecoderConfig, GenerationConfig, HostedConfig
from lockdec.transformer.decoding.caching import DecoderCache, KeyValueCache, Memory, whole_pieces
from lockdec.transformer.decoding.generation import generate
from lockdec.transformer.decoding.tokens import Generated, SpecialTokens
from lockdec.transformer.encoded import Encoded, PlugBatch
from lockdec.transformer.fast import Packing
from lockdec.transformer.layers import DecoderStack
from lockdec.transformer.positional import TokenEmbedding


@dataclass(frozen=True)
class Prefix:
    """Hidden states after the first `layers` layers of a decoder; 0 layers give the embedded tokens."""

    hidden: Float[Tensor, "b t d_model"]
    layers: int


def require_width(encoded: Encoded, encoder_dim: int | None) -> None:
    """Raise LockdecError unless the states are as wide as cross-attention was made for."""
    if encoded.states.shape[-1] != encoder_dim:
        raise LockdecError(
            f"the encoder's states are {encoded.states.shape[-1]} wide, but cross-attention was made for "
            f"encoder_dim={encoder_dim}: make it for the width of this encoder"
        )


class AutoregressiveModel(nn.Module, ABC):
    """A decoder over tokens, each predicted from those before it and from an encoded input.

    No position attends to later ones, so real positions ignore padding on the right without a mask; what is computed at
    padding itself is meaningless.
    """

    config: DecoderConfig | HostedConfig

    @property
    @abstractmethod
    def encoder_dim(self) -> int | None:
        """The width of the states that it attends to; None where it attends to none."""

    @abstractmethod
    def admit(self, encoded: Encoded | PlugBatch | None) -> Encoded | PlugBatch | None:
        """The encoded input that the layers attend to, if any; LockdecError if it is missing or does not fit."""

    @abstractmethod
    def hidden(
        self, tokens: Int[Tensor, "b t"], encoded: Encoded | PlugBatch | None = None, prefix: Prefix | None = None
    ) -> Float[Tensor, "b t d_model"]:
        """The hidden states at every position; `logits` turns any of them into predictions.

        Args:
            prefix: of the same tokens, where it is known already; None where a soft prompt stands before them.

        Raises:
            LockdecError: the sequence is longer than max_len; the encoded input is missing or does not fit.
        """

    @abstractmethod
    def real_hidden(
        self,
        tokens: Int[Tensor, "b t"],
        packing: Packing,
        encoded: Encoded | PlugBatch | None = None,
        prefix: Prefix | None = None,
    ) -> Float[Tensor, "n d_model"]:
        """`hidden` at the packed positions only, row by row.

        Raises:
            LockdecError: as `hidden`.
        """

    @abstractmethod
    def logits(self, hidden: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n vocab"]:
        """Predictions of the next token from hidden states."""

    @abstractmethod
    def cache(self, encoded: Encoded | PlugBatch, max_len: int, beams: int = 1) -> Any:
        """An empty cache for `step`: the memories of the encoded input, and room for max_len tokens of each beam."""

    @abstractmethod
    def prefill(self, tokens: Int[Tensor, "_ t"], cache: Any) -> Float[Tensor, "b vocab"]:
        """Add what the sequences of every input begin with to the empty cache and predict the token after it.

        Args:
            tokens: a row for each input, or one for all; beams share them.
        """

    @abstractmethod
    def step(self, tokens: Int[Tensor, "b 1"], cache: Any) -> Float[Tensor, "b vocab"]:
        """Add the next token of every row to the cache and predict the one after it.

        Args:
            tokens: one for each beam of each input, side by side.
        """

    def cache_bytes(self, encoded: Encoded, positions: int) -> int | None:
        """The size of a cache of these inputs with room for so many tokens; None where it is not known."""
        return None

    def soft_prompt(self, encoded: Encoded | PlugBatch | None) -> Float[Tensor, "b k d_model"] | None:
        """Embeddings that stand before the tokens of each input; None where there are none."""
        return None

    @property
    def start(self) -> int:
        """The position of the first token, where positions are added to tokens."""
        return 0

    def _fitting(self, encoded: Encoded | None, otherwise: str) -> Encoded:
        if encoded is None:
            raise LockdecError(f"the decoder needs an encoded input: {otherwise}")
        require_width(encoded, self.encoder_dim)
        return encoded

    def forward(
        self, tokens: Int[Tensor, "b t"], encoded: Encoded | PlugBatch | None = None
    ) -> Float[Tensor, "b t vocab"]:
        """Predictions of the next token at every position."""
        return self.logits(self.hidden(tokens, encoded))

    def generate(
        self,
        encoded: Encoded | PlugBatch,
        *,
        bos_id: int,
        eos_id: int,
        pad_id: int,
        generator: torch.Generator | None = None,
        prompt: Sequence[int] = (),
        **options: Any,
    ) -> Int[Tensor, "b n"]:
        """Generate one sequence for every encoded input.

        Args:
            encoded: the inputs to attend to.
            bos_id, eos_id, pad_id: the tokens that begin a sequence, end it and pad what follows.
            generator: of the noise for nucleus and top_k; torch's global one where not given.
            prompt: tokens between bos and what is generated, the same for all; read in a single forward pass.
            options: strategy, max_new_tokens and the other fields of `GenerationConfig`.

        Returns:
            The new tokens, without bos and prompt and with eos where it was produced, padded to the longest sequence.

        Raises:
            LockdecError: an option is impossible, or sequences would be longer than max_len.
        """
        return self.generate_several(
            encoded, 1, bos_id=bos_id, eos_id=eos_id, pad_id=pad_id, generator=generator, prompt=prompt, **options
        ).tokens[:, 0]

    def generate_several(
        self,
        encoded: Encoded | PlugBatch,
        keep: int,
        *,
        bos_id: int,
        eos_id: int,
        pad_id: int,
        generator: torch.Generator | None = None,
        prompt: Sequence[int] = (),
        **options: Any,
    ) -> Generated:
        """Generate several sequences for every encoded input: the best of a beam search, or as many draws.

        Args:
            keep: how many; of a beam search at most `beams`.

        The others and what is raised are those of `generate`.
        """
        special, config = SpecialTokens(bos_id, eos_id, pad_id), GenerationConfig(**options)
        config.check()
        if config.strategy == "beam" and keep > config.beams:
            raise LockdecError(f"generation.beams={config.beams}: too few to keep {keep} sequences of each input")
        with torch.inference_mode():
            tokens, log_probs = generate(self, encoded, special, config, generator, prompt, keep)
        return Generated(tokens.clone(), log_probs.clone())  # outside of inference mode: they may take part in training


class StackedModel(AutoregressiveModel):
    """An embedding of tokens and a stack of our own layers."""

    config: DecoderConfig
    embedding: TokenEmbedding
    decoder: DecoderStack

    def prefix(
        self, tokens: Int[Tensor, "b t"], layers: int, real: Bool[Tensor, "b t"] | None = None, shared: int = 0
    ) -> Prefix:
        """Apply the first layers, which attend to no encoded input; LockdecError as `hidden`.

        Args:
            real: true where there is a token; nothing is computed at padding. None: there is none.
            shared: how many tokens all rows begin with: they are computed once.
        """
        x = self.embedding(tokens)
        past: list[KeyValueCache | None] = [None] * layers
        if not layers:
            return Prefix(x, 0)
        beginning, rest = x[:, :shared], x[:, shared:]
        if shared:
            cache = DecoderCache([None] * layers, len(x), 1, x.shape[1], x)
            past = [*cache.past]
            cache.begin(shared=shared)
            beginning = self._below(beginning[:1], past).expand(len(x), -1, -1)
            cache.begin(shared=rest.shape[1])
        if real is None:
            rest = self._below(rest, past)
        else:
            packing = Packing(real[:, shared:])
            rest = packing.unpack(self._below(packing.pack(rest), past, packing))
        return Prefix(torch.cat((beginning, rest), dim=1), layers)

    def _below(
        self, x: Float[Tensor, "_ t d_model"], past: Sequence[KeyValueCache | None], packing: Packing | None = None
    ) -> Float[Tensor, "_ t d_model"]:
        """What the first layers make of x, as many as there are pasts."""
        for layer, layer_past in zip(self.decoder.layers, past, strict=False):
            x = layer(x, cache=layer_past, packing=packing)
        return x

    def hidden(
        self, tokens: Int[Tensor, "b t"], encoded: Encoded | PlugBatch | None = None, prefix: Prefix | None = None
    ) -> Float[Tensor, "b t d_model"]:
        admitted, before = self.admit(encoded), self.soft_prompt(encoded)
        if before is not None:
            return cast(Tensor, self.decoder(self._after(before, tokens), admitted))[:, before.shape[1] :]
        below = self.prefix(tokens, 0) if prefix is None else prefix
        return cast(Tensor, self.decoder(below.hidden, admitted, start=below.layers))

    def real_hidden(
        self,
        tokens: Int[Tensor, "b t"],
        packing: Packing,
        encoded: Encoded | PlugBatch | None = None,
        prefix: Prefix | None = None,
    ) -> Float[Tensor, "n d_model"]:
        admitted, before = self.admit(encoded), self.soft_prompt(encoded)
        if before is not None:
            whole = packing.preceded(before.shape[1])
            packed: Tensor = self.decoder(whole.pack(self._after(before, tokens)), admitted, packing=whole)
            return packing.pack(whole.unpack(packed)[:, before.shape[1] :]).squeeze(0)
        below = self.prefix(tokens, 0) if prefix is None else prefix
        x = packing.pack(below.hidden)  # (1, n, d_model); nothing is computed at the other positions
        hidden: Tensor = self.decoder(x, admitted, packing=packing, start=below.layers)
        return hidden.squeeze(0)

    def _after(
        self, before: Float[Tensor, "b k d_model"], tokens: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b k_and_t d_model"]:
        """The embedded tokens after a soft prompt."""
        self._require_room(before, tokens.shape[1])
        vectors = self.embedding(tokens, self.start)
        return torch.cat((before.to(vectors), vectors), dim=1)

    def _require_room(self, before: Float[Tensor, "b k d_model"] | None, tokens: int) -> None:
        """Raise LockdecError where tokens after a soft prompt are beyond the last position."""
        relative = self.config.position == "rope"
        first = before.shape[1] if before is not None and relative else self.start
        self.embedding.require_room(first + tokens)

    def logits(self, hidden: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n vocab"]:
        return self.embedding.logits(hidden)

    def cache(self, encoded: Encoded | PlugBatch, max_len: int, beams: int = 1) -> DecoderCache:
        admitted, before = self.admit(encoded), self.soft_prompt(encoded)
        positions, like = 0 if before is None else before.shape[1], self.embedding.tokens.weight
        self._require_room(before, max_len)
        cache = DecoderCache(self.decoder.remember(admitted), len(encoded), beams, positions + max_len, like)
        if before is not None:
            cache.begin(shared=positions)
            self.decoder(before.to(like), cache=cache)
            cache.unnumbered = positions - self.start
        return cache

    def cache_bytes(self, encoded: Encoded, positions: int) -> int:
        memories, before = self.decoder.remember(self.admit(encoded)), self.soft_prompt(encoded)
        attended = [part for memory in memories if isinstance(memory, Memory) for part in (memory.key, memory.value)]
        places = whole_pieces(positions + (0 if before is None else before.shape[1]))
        numbers = 2 * len(encoded) * self.config.layers * self.config.key_heads * self.config.d_head * places
        return numbers * self.embedding.tokens.weight.element_size() + sum(part.nbytes for part in attended)

    def prefill(self, tokens: Int[Tensor, "_ t"], cache: DecoderCache) -> Float[Tensor, "b vocab"]:
        cache.begin(shared=tokens.shape[1])
        if cache.step:  # a soft prompt is before them, which differs from input to input
            tokens = tokens.expand(cache.inputs, -1)
        hidden: Tensor = self.decoder(self.embedding(tokens, cache.step - cache.unnumbered), cache=cache)
        return self.logits(hidden[:, -1]).expand(cache.inputs, -1)

    def step(self, tokens: Int[Tensor, "b 1"], cache: DecoderCache) -> Float[Tensor, "b vocab"]:
        cache.begin()
        hidden: Tensor = self.decoder(self.embedding(tokens, cache.step - cache.unnumbered), cache=cache)
        return self.logits(hidden[:, -1])
