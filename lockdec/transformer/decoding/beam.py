"""Beam search."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from lockdec.transformer.configuration import GenerationConfig
from lockdec.transformer.decoding.caching import StepCache
from lockdec.transformer.decoding.tokens import Generated, SpecialTokens, Step, compact, constrain, pays_to_drop


def beam_search(
    step: Step,
    cache: StepCache,
    inputs: int,
    device: torch.device,
    special: SpecialTokens,
    config: GenerationConfig,
    keep: int = 1,
) -> Generated:
    """Keep the `beams` likeliest unfinished sequences of every input, and return its best finished ones, best first.

    The score of a finished sequence of n tokens, EOS included, is log-probability / n ** length_penalty. An input is
    done when `beams` of its sequences are finished and, unless early_stopping, no unfinished one would now score
    higher than the worst of them.

    Args:
        keep: how many sequences of each input are returned, at most `beams`. Where there are not so many, others stand
            in their places, with a log-probability of -inf.
    """
    beams, longest = config.beams, config.max_new_tokens
    best = torch.full((inputs, keep, longest), -1, device=device)
    best_own = torch.full((inputs, keep), -torch.inf, device=device)
    rows = torch.arange(inputs, device=device)  # the inputs still in the batch
    active = torch.ones(inputs, dtype=torch.bool, device=device)  # whether each of them is not done

    unfinished = torch.full((inputs, beams, 1 + longest), -1, device=device)
    unfinished[:, :, 0] = special.bos
    log_probability = torch.full((inputs, beams), -torch.inf, device=device)  # of `unfinished`, descending
    log_probability[:, 0] = 0.0  # all beams are initially the same: follow one
    own = log_probability.clone()  # as if nothing had been ruled out or made less likely
    finished, finished_own = unfinished.clone(), torch.full_like(own, -torch.inf)
    score = torch.full_like(log_probability, -torch.inf)  # of `finished`, descending

    for length in range(1, longest + 1):
        past = unfinished[:, :, :length].flatten(0, 1)  # (b * beams, length)
        own_gain = step(past[:, -1:]).float().log_softmax(-1)
        gain = constrain(own_gain.clone(), past, special, config)
        vocab = gain.shape[-1]
        total = (log_probability.unsqueeze(2) + gain.view(-1, beams, vocab)).flatten(1)  # (b, beams * vocab)
        # Only one candidate of each beam ends with EOS, so among twice as many there are enough unfinished ones.
        candidate, place = total.topk(2 * beams)
        parent, token = place // vocab, place % vocab  # (b, 2 * beams)
        extended = pick(unfinished, parent)
        extended[:, :, length] = token
        extended_own = own.gather(1, parent) + own_gain.view(len(rows), -1).gather(1, place)
        ends = (token == special.eos) | (length == longest)

        ended = (candidate / length**config.length_penalty).masked_fill(~ends, -torch.inf)[:, :beams]
        score, order = torch.cat((score, ended), dim=1).topk(beams)
        finished = pick(torch.cat((finished, extended[:, :beams]), dim=1), order)
        finished_own = torch.cat((finished_own, extended_own[:, :beams]), dim=1).gather(1, order)

        log_probability, order = candidate.masked_fill(ends, -torch.inf).topk(beams)
        unfinished, parent, own = pick(extended, order), parent.gather(1, order), extended_own.gather(1, order)

        done = score[:, -1] > -torch.inf
        if not config.early_stopping:
            done &= log_probability[:, 0] / length**config.length_penalty <= score[:, -1]
        best[rows] = finished[:, :keep, 1:].where(active[:, None, None], best[rows])
        best_own[rows] = finished_own[:, :keep].where(active[:, None], best_own[rows])
        active = active & ~done
        kept = compact(active)
        if length == longest or not len(kept):
            break
        drop = pays_to_drop(len(kept), len(rows))
        cache.select(kept if drop else None, parent)
        if drop:
            rows, active, unfinished, finished = rows[kept], active[kept], unfinished[kept], finished[kept]
            log_probability, score = log_probability[kept], score[kept]
            own, finished_own = own[kept], finished_own[kept]
    used = int((best >= 0).flatten(0, 1).any(0).sum())
    return Generated(best[:, :, :used].masked_fill(best[:, :, :used] < 0, special.pad), best_own)


def pick(sequences: Int[Tensor, "b beams n"], order: Int[Tensor, "b new"]) -> Int[Tensor, "b new n"]:
    """The sequences of every input at these places."""
    return sequences.gather(1, order.unsqueeze(2).expand(-1, -1, sequences.shape[2]))
