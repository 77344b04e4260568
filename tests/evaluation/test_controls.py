"""The controls, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lockdec.encoders.encoded import EncodedSet
from lockdec.evaluation.controls import nearest_rows, shuffled
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


@given(st.lists(st.integers(), min_size=2, max_size=9, unique=True))
def test_shuffled_gives_every_item_another_one(items: list[int]) -> None:
    others = shuffled(items)
    assert sorted(others) == sorted(items)
    assert all(item != other for item, other in zip(items, others, strict=True))
