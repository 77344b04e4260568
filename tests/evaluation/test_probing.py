"""The linear probe: ridge regression against the normal equations, and what a linear classifier can read."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from lockdec.evaluation.probing import LinearProbe, Ridge, commonest


def accuracy(states: Tensor, labels: Sequence[str], known: int) -> float:
    """Of a probe of the first inputs, on the others."""
    said = LinearProbe(states[:known], labels[:known])(states[known:])
    return sum(one == other for one, other in zip(said, labels[known:], strict=True)) / (len(labels) - known)


@pytest.mark.parametrize("count", [5, 30])  # fewer inputs than channels, and more
def test_ridge_regression_solves_the_normal_equations_and_leaves_one_out(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    states, wanted = (torch.randn(count, width, generator=generator).double() + 1 for width in (8, 3))
    ridge, penalty = Ridge(states, wanted), 2.5

    def solved(x: Tensor, y: Tensor) -> Tensor:
        moved = x - x.mean(0)
        weight: Tensor = torch.linalg.solve(moved.T @ moved + penalty * torch.eye(8), moved.T @ (y - y.mean(0)))
        return weight

    torch.testing.assert_close(ridge.weight(penalty), solved(states, wanted))
    for left_out in range(count):
        others = torch.arange(count) != left_out
        x, y = states[others], wanted[others]
        expected = (states[left_out] - x.mean(0)) @ solved(x, y) + y.mean(0)
        torch.testing.assert_close(ridge.without(penalty)[left_out], expected)


def test_it_reads_a_direction_of_the_states_and_no_product_of_two() -> None:
    states = torch.randn(600, 6, generator=torch.Generator().manual_seed(0))
    assert accuracy(states, ["up" if value > 0 else "down" for value in states[:, 2].tolist()], 400) > 0.9
    assert accuracy(states, ["same" if x * y > 0 else "other" for x, y in states[:, :2].tolist()], 400) < 0.65


def test_where_nothing_can_be_read_it_says_what_is_commonest() -> None:
    """The states are constant, so that the regression is its intercept."""
    labels = ["rare", "common", "common", "rare", "common"]
    assert commonest(labels) == "common"
    assert LinearProbe(torch.ones(5, 3), labels)(torch.ones(2, 3)) == ["common", "common"]


def test_a_single_label_is_always_the_answer() -> None:
    assert LinearProbe(torch.randn(1, 3), ["only"])(torch.randn(2, 3)) == ["only", "only"]


def test_without_inputs_there_is_no_probe() -> None:
    with pytest.raises(ValueError, match="needs training inputs"):
        LinearProbe(torch.empty(0, 3), [])
