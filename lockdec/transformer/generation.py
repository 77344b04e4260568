"""Writing: turn predictions of the next token into sequences, with nothing computed twice.

Keys and values of what was written are cached; those of the encoded input are computed once; rows that have
ended leave the batch; and it stops when every row has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lockdec.transformer.configuration import GenerationConfig
from lockdec.transformer.encoded import Encoded
from lockdec.transformer.layers import DecoderCache


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens that start a sequence, end it, and fill what follows."""

    bos: int
    eos: int
    pad: int


@runtime_checkable
class Writes(Protocol):
    """A model that predicts the next token and keeps what it has computed."""

    def cache(self, encoded: Encoded | None, rows: int, max_len: int) -> DecoderCache:
        """An empty cache: room for `rows` sequences of max_len tokens, and what they look at."""
        ...

    def step(self, tokens: Int[Tensor, "b t"], cache: DecoderCache) -> Float[Tensor, "b vocab"]:
        """Add the next t tokens to the cache and predict the one after them."""
        ...


def generate(
    model: Writes, encoded: Encoded, special: SpecialTokens, config: GenerationConfig
) -> Int[Tensor, "b n"]:
    """Write one sequence for every encoded input; see `AutoregressiveModel.generate`."""
    rows = len(encoded)
    cache = model.cache(encoded, rows, config.max_new_tokens)
    device = encoded.states.device
    out = torch.full((rows, config.max_new_tokens), special.pad, device=device)  # (b, n)
    going = torch.arange(rows, device=device)  # the rows of `out` that have not ended
    tokens = torch.full((rows,), special.bos, device=device)
    length = 0
    while length < config.max_new_tokens and len(going):
        logits = model.step(tokens.unsqueeze(1), cache)
        if length < config.min_new_tokens:
            logits[:, special.eos] = -torch.inf
        tokens = logits.argmax(-1)
        out[going, length] = tokens
        length += 1
        keep = (tokens != special.eos).nonzero().squeeze(1)
        if len(keep) < len(going):
            going, tokens = going[keep], tokens[keep]
            cache.select(keep)
    return out[:, :length]
