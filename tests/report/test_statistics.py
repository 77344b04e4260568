"""Intervals against derivations, and their published coverage against a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockdec.report.statistics import COVERAGE, Estimate, Unit, differences, estimates

values = st.lists(st.floats(-1, 1), min_size=3, max_size=6)


def test_three_seeds_give_the_range_of_their_values() -> None:
    # Of the 27 resamples one is thrice the least value: 1/27 > 2.5 %, so the 2.5 % quantile is that value.
    (estimate,) = estimates([[0.5, 0.2, 0.8]])
    assert estimate is not None
    assert [estimate.mean, estimate.low, estimate.high] == pytest.approx([0.5, 0.2, 0.8])
    assert estimate.n == 3


def test_five_seeds_give_the_quantiles_of_all_their_resamples() -> None:
    row = [0.1, 0.25, 0.3, 0.6, 0.95]
    places = np.indices((5,) * 5).reshape(5, -1).T
    means = np.asarray(row)[places].mean(axis=1)  # all 3125 equally likely resamples
    (estimate,) = estimates([row])
    assert estimate is not None
    assert estimate.low == pytest.approx(np.quantile(means, 0.025), abs=0.012)
    assert estimate.high == pytest.approx(np.quantile(means, 0.975), abs=0.012)


@pytest.mark.parametrize("row", [[0.4], [0.4, 0.6]])
def test_below_three_seeds_there_is_a_mean_and_no_interval(row: list[float]) -> None:
    (estimate,) = estimates([row])
    assert estimate == Estimate(sum(row) / len(row), None, None, len(row))
    assert estimate.verdict == "unknown"


def test_no_values_give_no_estimate() -> None:
    assert estimates([[], [0.5]])[0] is None


@settings(max_examples=25, deadline=None)
@given(st.lists(values, min_size=1, max_size=4), st.floats(-1, 1))
def test_a_row_does_not_depend_on_its_neighbours_and_shifts_with_its_values(
    rows: list[list[float]], shift: float
) -> None:
    together = estimates(rows)
    for row, estimate in zip(rows, together, strict=True):
        assert estimates([row]) == [estimate]
        assert estimate is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert min(row) - 1e-9 <= estimate.low <= estimate.mean + 1e-9
        assert estimate.mean - 1e-9 <= estimate.high <= max(row) + 1e-9
        (moved,) = estimates([[value + shift for value in row]])
        assert moved is not None
        assert moved.low == pytest.approx(estimate.low + shift, abs=1e-9)


def test_verdicts() -> None:
    intervals = ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), (0.0, 0.1))
    found = [Estimate(0.0, low, high, 3).verdict for low, high in intervals]
    assert found == ["above", "below", "either", "either"]


def test_differences_pair_shared_units_only() -> None:
    first: dict[Unit, float] = {(0, 0): 0.5, (1, 1): 0.75, (2, 2): 0.25}
    second: dict[Unit, float] = {(1, 1): 0.25, (0, 0): 0.25, (7, 7): 0.0}
    assert differences(first, second) == [0.25, 0.5]


def test_pairing_removes_what_both_settings_share() -> None:
    easy: dict[Unit, float] = {(seed, seed): level for seed, level in enumerate((0.2, 0.5, 0.9))}
    (paired,) = estimates([differences({unit: value - 0.125 for unit, value in easy.items()}, easy)])
    assert paired is not None
    assert [paired.low, paired.high] == pytest.approx([-0.125, -0.125])


@pytest.mark.parametrize("n", sorted(COVERAGE))
def test_the_coverage_that_the_report_states(n: int) -> None:
    rows = np.random.default_rng(n).normal(size=(1_500, n)).tolist()
    held = [e.low is not None and e.high is not None and e.low <= 0 <= e.high for e in estimates(rows) if e]
    assert np.mean(held) == pytest.approx(COVERAGE[n], abs=0.03)
