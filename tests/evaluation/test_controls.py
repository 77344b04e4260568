"""The controls, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lockdec.encoders.encoded import EncodedSet
from lockdec.evaluation.controls import SHIFTS, averaged, nearest_rows, shifted, shifts
from tests.encoders.array_encoder import Scaled
from tests.encoders.kinds import Given


def encoded_set(folder: Path, inputs: list[list[list[float]]]) -> EncodedSet:
    """These states, each input's own number of them, as they are."""
    data = Given([np.array(states, np.float32) for states in inputs], "array")
    return EncodedSet.write(folder, Scaled(3), data, "none", dtype="float32")


def test_the_nearest_row_has_the_largest_cosine_of_mean_states(tmp_path: Path) -> None:
    encoded = encoded_set(
        tmp_path,
        [
            [[1.0, 0.1, 0.0], [1.0, -0.1, 0.0]],  # mean (1, 0, 0)
            [[0.0, 9.0, 0.0], [0.0, 1.0, 0.0]],  # mean (0, 5, 0)
            [[5.0, 5.0, 0.0], [5.0, 6.0, 0.0]],  # long, and at about 45 degrees to both
            [[0.1, 0.0, 0.0], [0.1, 0.02, 0.0]],  # short, along the first
            [[-1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]],
        ],
    )
    assert nearest_rows(encoded, [3, 1, 0], [0, 2, 4]) == [0, 1, 0]
    assert nearest_rows(encoded, [4], [0, 1, 2]) == [1], "a right angle is nearer than the opposite"


@given(st.lists(st.integers(), max_size=30, unique=True))
def test_each_shift_gives_every_item_another_one(items: list[int]) -> None:
    found = shifts(len(items))
    assert len(set(found)) == len(found) == min(SHIFTS, max(0, len(items) - 1)) or 2 <= len(items) <= SHIFTS
    assert found[0] == len(items) // 2 if len(items) > 1 else found == []
    for shift in found:
        others = shifted(items, shift)
        assert sorted(others) == sorted(items)
        assert all(item != other for item, other in zip(items, others, strict=True))


def test_shifts_are_spread_over_the_list_half_of_it_first() -> None:
    assert shifts(60) == [30, 20, 40, 10, 50]
    assert shifted("abcdef", 2) == list("cdefab")


def test_scores_are_averaged_metric_by_metric() -> None:
    assert averaged([{"a": 1.0, "b": 0.5}, {"a": 0.0, "b": 1.0}]) == {"a": 0.5, "b": 0.75}
