"""Writing: turn predictions of the next token into sequences, with nothing computed twice.

The keys and values of what was written are cached, those of the encoded input are computed once, what has
ended leaves the batch (unless a recorded step has to stay as it is), and it stops when everything has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lockdec.transformer.configuration import GenerationConfig
from lockdec.transformer.decoding.caching import DecoderCache
from lockdec.transformer.encoded import Encoded

# Of a batch: rows that have ended leave it when no more than this goes on, since to move rows takes time as well.
CROWD = 0.9


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens that start a sequence, end it, and fill what follows."""

    bos: int
    eos: int
    pad: int


Step = Callable[[Int[Tensor, "b 1"]], Float[Tensor, "b vocab"]]


@runtime_checkable
class Writes(Protocol):
    """A model that predicts the next token and keeps what it has computed."""

    def cache(self, encoded: Encoded, max_len: int, beams: int = 1, fixed: bool = False) -> DecoderCache:
        """An empty cache for `step`: what there is to look at, and room for max_len tokens; fixed for `Recorded`."""
        ...

    def step(self, tokens: Int[Tensor, "b 1"], cache: DecoderCache) -> Float[Tensor, "b vocab"]:
        """Add the next token of every row to the cache and predict the one after it.

        The rows may be several per input, side by side: beams.
        """
        ...


def generate(
    model: Writes,
    encoded: Encoded,
    special: SpecialTokens,
    config: GenerationConfig,
    generator: torch.Generator | None = None,
    recorded: bool = False,
) -> Int[Tensor, "b n"]:
    """Write one sequence for every encoded input; see `AutoregressiveModel.generate`."""
    beams = config.beams if config.strategy == "beam" else 1
    cache = model.cache(encoded, config.max_new_tokens, beams, recorded)
    if recorded and encoded.states.is_cuda:
        step: Step = Recorded(
            model, cache, torch.full((len(encoded) * beams, 1), special.bos, device=encoded.states.device)
        )
    else:
        step = partial(model.step, cache=cache)
    if config.strategy == "beam":
        return beam_search(step, cache, encoded, special, config)
    return write_one_by_one(step, cache, encoded, special, config, generator)


class Recorded:
    """A step as a CUDA graph: its kernels follow each other without Python, which takes longer to launch them.

    Args:
        cache: fixed and empty; every call adds to it.
        tokens: some, as many as every call is given; written over.
    """

    def __init__(self, model: Writes, cache: DecoderCache, tokens: Int[Tensor, "b 1"]) -> None:
        self._tokens, self._graph = tokens, torch.cuda.CUDAGraph()
        model.step(tokens, cache)  # what only a first step does, such as making buffers, may not be recorded
        with torch.cuda.graph(self._graph):
            self._logits = model.step(tokens, cache)
        cache.restart()

    def __call__(self, tokens: Int[Tensor, "b 1"]) -> Float[Tensor, "b vocab"]:
        """Predictions of the next token, in memory that the next call writes over."""
        self._tokens.copy_(tokens)
        self._graph.replay()
        return self._logits


def constrain(
    scores: Float[Tensor, "b vocab"],
    written: Int[Tensor, "b t"],
    special: SpecialTokens,
    config: GenerationConfig,
) -> Float[Tensor, "b vocab"]:
    """Rule out, in place, what may not follow.

    Args:
        scores: logits or log-probabilities of the next token.
        written: the tokens so far, the starting one included.
    """
    if config.repetition_penalty != 1.0:  # Keskar et al. 2019, 4.1
        seen = scores.gather(1, written)
        factor = config.repetition_penalty
        scores.scatter_(1, written, torch.where(seen < 0, seen * factor, seen / factor))
    size = config.no_repeat_ngram
    if 0 < size <= written.shape[1]:
        ngrams = written.unfold(1, size, 1)  # (b, t - size + 1, size)
        start = written[:, written.shape[1] - size + 1 :].unsqueeze(1)  # (b, 1, size - 1)
        row, place = (ngrams[..., :-1] == start).all(-1).nonzero(as_tuple=True)
        scores[row, ngrams[row, place, -1]] = -torch.inf
    if written.shape[1] <= config.min_new_tokens:
        scores[:, special.eos] = -torch.inf
    return scores


def draw(logits: Float[Tensor, "b vocab"], luck: Float[Tensor, " b"], config: GenerationConfig) -> Int[Tensor, " b"]:
    """Draw from the likeliest tokens: the fewest that have top_p of the probability, or top_k of them.

    (Holtzman et al. 2020; Fan et al. 2018.)

    Args:
        luck: one uniform number per row; the token at which the cumulative probability passes it is drawn.
    """
    probability, token = (logits / config.temperature).softmax(-1).sort(-1, descending=True)
    cumulative = probability.cumsum(-1)
    if config.strategy == "nucleus":
        last = (cumulative < config.top_p).sum(-1, keepdim=True).clamp(max=cumulative.shape[-1] - 1)
    else:
        last = torch.full_like(token[:, :1], min(config.top_k, cumulative.shape[-1]) - 1)
    place = (cumulative <= luck.unsqueeze(1) * cumulative.gather(1, last)).sum(-1, keepdim=True)
    return token.gather(1, torch.minimum(place, last)).squeeze(1)


def close_ranks(going: Bool[Tensor, " b"]) -> Int[Tensor, " n"]:
    """The rows that go on, so ordered that few change places: the last ones fill the gaps that others leave."""
    rows = going.nonzero().squeeze(1)
    order = torch.arange(len(rows), device=rows.device)
    order[~going[: len(rows)]] = rows[rows >= len(rows)]
    return order


def write_one_by_one(
    step: Step,
    cache: DecoderCache,
    encoded: Encoded,
    special: SpecialTokens,
    config: GenerationConfig,
    generator: torch.Generator | None,
) -> Int[Tensor, "b n"]:
    """Append the likeliest token (greedy) or one that is drawn (nucleus, top_k) until every row has ended.

    Each row gets one uniform number per step, so what it writes does not depend on when other rows end.
    """
    rows, longest, device = len(encoded), config.max_new_tokens, encoded.states.device
    written = torch.full((rows, 1 + longest), special.pad, device=device)
    written[:, 0] = special.bos
    luck = None
    if config.strategy != "greedy":
        source = device if generator is None else generator.device
        luck = torch.rand(longest, rows, generator=generator, device=source).to(device)
    going = torch.arange(rows, device=device)  # the rows of the batch, which is fixed or loses those that have ended
    alive = torch.ones(rows, dtype=torch.bool, device=device)
    length = 0
    while length < longest and len(going):
        length += 1
        past = written[going, :length]
        logits = constrain(step(past[:, -1:]).float(), past, special, config)
        tokens = logits.argmax(-1) if luck is None else draw(logits, luck[length - 1, going], config)
        written[going, length] = tokens.where(alive, special.pad)
        alive = alive & (tokens != special.eos)
        on = close_ranks(alive)
        if not len(on):
            break
        if len(on) <= CROWD * len(going) and not cache.fixed:
            going, alive = going[on], alive[on]
            cache.select(on)
    return written[:, 1 : length + 1]


def beam_search(
    step: Step, cache: DecoderCache, encoded: Encoded, special: SpecialTokens, config: GenerationConfig
) -> Int[Tensor, "b n"]:
    """Keep the `beams` likeliest beginnings of every input, and return its best finished sequence.

    A finished sequence of n tokens, its end included, is worth log-probability / n ** length_penalty. An
    input is done when `beams` sequences have finished and, unless early_stopping, no beginning is now worth
    more than the worst of them.
    """
    beams, longest, device = config.beams, config.max_new_tokens, encoded.states.device
    inputs = len(encoded)
    best = torch.full((inputs, longest), -1, device=device)
    going = torch.arange(inputs, device=device)  # the inputs of the batch, which is fixed or loses those that are done
    alive = torch.ones(inputs, dtype=torch.bool, device=device)

    written = torch.full((inputs, beams, 1 + longest), -1, device=device)
    written[:, :, 0] = special.bos
    score = torch.full((inputs, beams), -torch.inf, device=device)  # (b, beams), descending
    score[:, 0] = 0.0  # all beams begin alike: follow one
    finished = written.clone()
    worth = torch.full_like(score, -torch.inf)  # of `finished`, descending

    for length in range(1, longest + 1):
        past = written[:, :, :length].flatten(0, 1)  # (b * beams, length)
        logits = step(past[:, -1:]).float()
        gain = constrain(logits.log_softmax(-1), past, special, config)
        vocab = gain.shape[-1]
        total = (score.unsqueeze(2) + gain.view(-1, beams, vocab)).flatten(1)  # (b, beams * vocab)
        # Every beam can end only once, so among twice as many candidates there are enough that go on.
        candidate, place = total.topk(2 * beams)
        parent, token = place // vocab, place % vocab  # (b, 2 * beams)
        grown = pick(written, parent)
        grown[:, :, length] = token
        ends = (token == special.eos) | (length == longest)

        ended = (candidate / length**config.length_penalty).masked_fill(~ends, -torch.inf)[:, :beams]
        worth, order = torch.cat((worth, ended), dim=1).topk(beams)
        finished = pick(torch.cat((finished, grown[:, :beams]), dim=1), order)

        score, order = candidate.masked_fill(ends, -torch.inf).topk(beams)
        written, parent = pick(grown, order), parent.gather(1, order)

        done = worth[:, -1] > -torch.inf
        if not config.early_stopping:
            done &= score[:, 0] / length**config.length_penalty <= worth[:, -1]
        best[going] = finished[:, 0, 1:].where(alive.unsqueeze(1), best[going])
        alive = alive & ~done
        on = close_ranks(alive)
        if length == longest or not len(on):
            break
        leave = len(on) <= CROWD * len(going) and not cache.fixed
        cache.select(on if leave else None, parent)
        if leave:
            going, alive, written, score = going[on], alive[on], written[on], score[on]
            finished, worth = finished[on], worth[on]
    used = int((best >= 0).any(0).sum())
    return best[:, :used].masked_fill(best[:, :used] < 0, special.pad)


def pick(sequences: Int[Tensor, "b beams n"], order: Int[Tensor, "b new"]) -> Int[Tensor, "b new n"]:
    """The sequences of every input at these places."""
    return sequences.gather(1, order.unsqueeze(2).expand(-1, -1, sequences.shape[2]))
