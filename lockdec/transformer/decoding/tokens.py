"""What all decoding strategies share: special tokens, tokens that are ruled out, and sequences that finish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lockdec.transformer.configuration import GenerationConfig

# Dropping finished sequences takes time, so it waits until at most this share of the batch is active.
ACTIVE = 0.9

Step = Callable[[Int[Tensor, "b 1"]], Float[Tensor, "b vocab"]]  # the last token of each row -> logits of the next


@dataclass(frozen=True)
class SpecialTokens:
    """The ids of the tokens that begin a sequence, end it, and pad what follows."""

    bos: int
    eos: int
    pad: int


class Generated(NamedTuple):
    """Sequences of every input, and how likely they are.

    Attributes:
        tokens: without BOS and prompt, with EOS where it was generated, padded to the longest sequence.
        log_probs: log p(sequence | input), in nats: the sum over its tokens, EOS included, of what the model predicts,
            whatever was ruled out or made less likely.
    """

    tokens: Int[Tensor, "b keep n"]
    log_probs: Float[Tensor, "b keep"]


def constrain(
    scores: Float[Tensor, "b vocab"],
    past: Int[Tensor, "b t"],
    special: SpecialTokens,
    config: GenerationConfig,
) -> Float[Tensor, "b vocab"]:
    """Apply the repetition penalty and rule out forbidden tokens, in place.

    Both leave EOS alone: an unfinished sequence has none, except as its BOS where a model uses one token for both.

    Args:
        scores: logits or log-probabilities of the next token.
        past: the tokens so far, BOS included.
    """
    end = scores[:, special.eos].clone()
    if config.repetition_penalty != 1.0:  # Keskar et al. 2019, 4.1
        seen = scores.gather(1, past)
        factor = config.repetition_penalty
        scores.scatter_(1, past, torch.where(seen < 0, seen * factor, seen / factor))
    size = config.no_repeat_ngram
    if 0 < size <= past.shape[1]:
        ngrams = past.unfold(1, size, 1)  # (b, t - size + 1, size)
        start = past[:, past.shape[1] - size + 1 :].unsqueeze(1)  # (b, 1, size - 1)
        row, place = (ngrams[..., :-1] == start).all(-1).nonzero(as_tuple=True)
        scores[row, ngrams[row, place, -1]] = -torch.inf
    scores[:, special.eos] = -torch.inf if past.shape[1] <= config.min_new_tokens else end
    return scores


def compact(active: Bool[Tensor, " b"]) -> Int[Tensor, " n"]:
    """The active rows, ordered so that few change places: the last ones fill the gaps of the finished ones."""
    rows = active.nonzero().squeeze(1)
    order = torch.arange(len(rows), device=rows.device)
    order[~active[: len(rows)]] = rows[rows >= len(rows)]
    return order


def pays_to_drop(kept: int, rows: int) -> bool:
    """Whether so few of the batch's rows are kept that dropping the others saves time."""
    return kept <= ACTIVE * rows
