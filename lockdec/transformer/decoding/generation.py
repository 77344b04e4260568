"""Autoregressive generation: from predictions of the next token to whole sequences, with nothing computed twice.

The keys and values of past tokens are cached, and those of the encoded input are computed once. Finished sequences
are dropped from the batch, and generation stops when all are finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lockdec.transformer.configuration import GenerationConfig
from lockdec.transformer.decoding.beam import beam_search
from lockdec.transformer.decoding.sampling import sample
from lockdec.transformer.decoding.tokens import Generated, SpecialTokens, Step
from lockdec.transformer.encoded import Encoded, PlugBatch


@runtime_checkable
class StepwiseDecoder(Protocol):
    """A model that predicts one token at a time and caches what it has computed."""

    def cache(self, encoded: Encoded | PlugBatch, max_len: int, beams: int = 1) -> Any:
        """An empty `StepCache` for `step`: the memories of the input, and room for max_len tokens of each beam."""
        ...

    def prefill(self, tokens: Int[Tensor, "_ t"], cache: Any) -> Float[Tensor, "b vocab"]:
        """Add what the sequences begin with, a row for each input or one for all, and predict the token after it."""
        ...

    def step(self, tokens: Int[Tensor, "b 1"], cache: Any) -> Float[Tensor, "b vocab"]:
        """Add the next token of every row to the cache and predict the one after it.

        The rows are the beams of the inputs, side by side.
        """
        ...


def generate(
    model: StepwiseDecoder,
    encoded: Encoded | PlugBatch,
    special: SpecialTokens,
    config: GenerationConfig,
    generator: torch.Generator | None = None,
    prompt: Sequence[int] = (),
    keep: int = 1,
) -> Generated:
    """Generate sequences for every encoded input; see `AutoregressiveModel.generate` and `generate_several`."""
    if keep > 1 and config.strategy != "beam":  # each is drawn by itself
        rows = torch.arange(len(encoded), device=encoded.like.device).repeat_interleave(keep)
        tokens, log_probs = generate(model, encoded.index(rows), special, config, generator, prompt)
        return Generated(tokens.view(len(encoded), keep, -1), log_probs.view(len(encoded), keep))
    inputs, device = len(encoded), encoded.like.device
    beams = config.beams if config.strategy == "beam" else 1
    cache = model.cache(encoded, len(prompt) + config.max_new_tokens, beams)
    step: Step = partial(model.step, cache=cache)
    if prompt:
        beginning = torch.tensor([[special.bos, *prompt]], device=device)  # of all inputs
        step = _after(model.prefill(beginning, cache).repeat_interleave(beams, dim=0), step)
    if config.strategy == "beam":
        return beam_search(step, cache, inputs, device, special, config, keep)
    return sample(step, cache, inputs, device, special, config, generator)


def _after(first: Float[Tensor, "b vocab"], step: Step) -> Step:
    """A step whose first prediction is known: the prefill has read the BOS that every strategy begins with."""
    waiting = [first]

    def prefilled(tokens: Int[Tensor, "b 1"]) -> Float[Tensor, "b vocab"]:
        return waiting.pop() if waiting else step(tokens)

    return prefilled
