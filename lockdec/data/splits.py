"""How many inputs a data set of fixed size uses and holds out, and its random split. Needs no torch."""

from __future__ import annotations

import random

from lockdec.data.captions import Split
from lockdec.errors import ConfigError

FEWEST = 32  # inputs of which some can be held out and the others are worth training on


def sizes(things: str, available: int, limit: int | None, val: int, test: int) -> tuple[int, int, int]:
    """How many inputs are used, and how many of them are held out for val and for test.

    Args:
        things: what errors call the inputs, such as "drawings".
        available: how many there are.
        limit, val, test: the options `data.limit`, `data.val` and `data.test`. With a limit, val and test are at most
            an eighth of it.

    Raises:
        ConfigError: one of the options is out of range.
    """
    if limit is not None:
        if not FEWEST <= limit <= available:
            raise ConfigError(f"data.limit={limit}: from {FEWEST} to {available} {things}, or null for all")
        available, val, test = limit, min(val, limit // 8), min(test, limit // 8)
    if min(val, test) < 1 or val + test >= available:
        raise ConfigError(f"data.val={val} data.test={test}: at least 1 each, together below {available} {things}")
    return available, val, test


def random_split(count: int, seed: int, val: int, test: int) -> dict[Split, list[int]]:
    """Hold out any of `count` rows."""
    order = random.Random(seed).sample(range(count), count)
    return {"test": order[:test], "val": order[test : test + val], "train": order[test + val :]}
