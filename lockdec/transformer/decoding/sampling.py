"""Strategies that extend one sequence per input by one token at a time: greedy, nucleus and top_k."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lockdec.transformer.configuration import GenerationConfig
from lockdec.transformer.decoding.caching import StepCache
from lockdec.transformer.decoding.tokens import Generated, SpecialTokens, Step, compact, constrain, pays_to_drop


def sample(
    step: Step,
    cache: StepCache,
    inputs: int,
    device: torch.device,
    special: SpecialTokens,
    config: GenerationConfig,
    generator: torch.Generator | None,
) -> Generated:
    """Append the likeliest token (greedy) or a drawn one (nucleus, top_k) until every sequence is finished.

    Each sequence has its own uniform noise for every step, so it does not depend on when others finish.
    """
    longest = config.max_new_tokens
    sequences = torch.full((inputs, 1 + longest), special.pad, device=device)
    sequences[:, 0] = special.bos
    log_probs = torch.zeros(inputs, device=device)
    noise = None
    if config.strategy != "greedy":
        source = device if generator is None else generator.device
        noise = torch.rand(longest, inputs, generator=generator, device=source).to(device)
    rows = torch.arange(inputs, device=device)  # the inputs still in the batch
    active = torch.ones(inputs, dtype=torch.bool, device=device)  # whether each of them is unfinished
    length = 0
    while length < longest and len(rows):
        length += 1
        past = sequences[rows, :length]
        logits = step(past[:, -1:]).float()
        own = logits.log_softmax(-1)
        logits = constrain(logits, past, special, config)
        tokens = logits.argmax(-1) if noise is None else draw(logits, noise[length - 1, rows], config)
        sequences[rows, length] = tokens.where(active, special.pad)
        log_probs[rows] += own.gather(1, tokens.unsqueeze(1)).squeeze(1).where(active, 0.0)
        active = active & (tokens != special.eos)
        kept = compact(active)
        if not len(kept):
            break
        if pays_to_drop(len(kept), len(rows)):
            rows, active = rows[kept], active[kept]
            cache.select(kept)
    return Generated(sequences[:, None, 1 : length + 1], log_probs.unsqueeze(1))


def draw(logits: Float[Tensor, "b vocab"], noise: Float[Tensor, " b"], config: GenerationConfig) -> Int[Tensor, " b"]:
    """Draw from the likeliest tokens: the fewest that have probability top_p together, or top_k of them.

    Nucleus: Holtzman et al. 2020. Top-k: Fan et al. 2018.

    Args:
        noise: uniform in [0, 1); each row's token is the one at which the cumulative probability exceeds it.
    """
    probability, token = (logits / config.temperature).softmax(-1).sort(-1, descending=True)
    cumulative = probability.cumsum(-1)
    if config.strategy == "nucleus":
        last = (cumulative < config.top_p).sum(-1, keepdim=True).clamp(max=cumulative.shape[-1] - 1)
    else:
        last = torch.full_like(token[:, :1], min(config.top_k, cumulative.shape[-1]) - 1)
    place = (cumulative <= noise.unsqueeze(1) * cumulative.gather(1, last)).sum(-1, keepdim=True)
    return token.gather(1, torch.minimum(place, last)).squeeze(1)
