"""Draws the support set: a few training inputs, with one caption each or with all. Needs no torch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from lockdec.data.captions import CaptionSet
from lockdec.errors import ConfigError

HELD_OUT = 8  # one input in so many is held out of a support set to choose the step by, and at least one


@dataclass(frozen=True, slots=True)
class Pair:
    """An input of the support set with one of its captions.

    Attributes:
        index: the row of the input in its caption set.
        caption: one of the input's references.
    """

    index: int
    caption: str


def support_set(captions: CaptionSet, shots: int, support_seed: int, references: str = "one") -> list[Pair]:
    """Draw `shots` different training inputs, with their captions.

    Support sets with the same seed are nested: a smaller one is the beginning of a larger one. The inputs are the same
    whatever `references` is.

    Args:
        references: "one" takes one caption of each input, drawn too; "all" takes every caption, each as a pair.

    Raises:
        ConfigError: `fewshot.shots` is below 1 or above the number of training inputs.
    """
    rows = captions.splits["train"]
    if shots > len(rows):
        raise ConfigError(f"fewshot.shots={shots}: there are only {len(rows)} training inputs")
    if shots < 1:
        raise ConfigError(f"fewshot.shots={shots}: from 1 to {len(rows)}")
    rng = random.Random(support_seed)
    order = rng.sample(rows, len(rows))
    chosen = order[:shots]
    if references == "all":
        return [Pair(row, caption) for row in chosen for caption in captions.captions[row]]
    return [Pair(row, rng.choice(captions.captions[row])) for row in chosen]


def hold_out(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """The pairs to train on, and those of an eighth of the inputs (at least one) to measure a loss on.

    The last inputs are held out: a support set is in the random order of its seed.

    Raises:
        ConfigError: there is a single input.
    """
    inputs = list(dict.fromkeys(pair.index for pair in pairs))
    if len(inputs) < 2:
        raise ConfigError("finetune.select=held_out: fewshot.shots=1 leaves nothing to train on; use 2 or more")
    kept = set(inputs[: len(inputs) - max(1, len(inputs) // HELD_OUT)])
    return [pair for pair in pairs if pair.index in kept], [pair for pair in pairs if pair.index not in kept]
