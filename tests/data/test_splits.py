"""How many inputs are used and held out, and which."""

from __future__ import annotations

import pytest

from lockdec.data.splits import random_split, sizes
from lockdec.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((100, None, 20, 30), (100, 20, 30)),
        ((100, 40, 20, 30), (40, 5, 5)),  # an eighth
        ((1000, 400, 20, 30), (400, 20, 30)),  # less than an eighth
        ((100, 100, 1, 2), (100, 1, 2)),
        ((100, None, 49, 50), (100, 49, 50)),  # one is left to train on
    ],
)
def test_a_limit_holds_out_at_most_an_eighth(
    options: tuple[int, int | None, int, int], expected: tuple[int, int, int]
) -> None:
    assert sizes("tunes", *options) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((100, 31, 4, 4), "data.limit=31: from 32 to 100 tunes, or null for all"),
        ((100, 101, 4, 4), "data.limit=101: from 32 to 100 tunes, or null for all"),
        ((100, None, 0, 4), "data.val=0 data.test=4: at least 1 each, together below 100 tunes"),
        ((100, None, 50, 50), "data.val=50 data.test=50: at least 1 each, together below 100 tunes"),
    ],
)
def test_what_cannot_be_held_out_is_refused_by_its_key(options: tuple[int, int | None, int, int], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        sizes("tunes", *options)
    assert str(error.value) == said


def test_a_random_split_has_every_row_once_and_depends_on_the_seed() -> None:
    split = random_split(50, 0, val=7, test=9)
    assert {name: len(rows) for name, rows in split.items()} == {"train": 34, "val": 7, "test": 9}
    assert sorted(row for rows in split.values() for row in rows) == list(range(50))
    assert random_split(50, 0, 7, 9) == split != random_split(50, 1, 7, 9)
