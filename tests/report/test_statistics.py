"""Intervals and corrected verdicts: against scipy, and their coverage against simulations."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lockdec.report.statistics import LEAST_ITEMS, Estimate, Unit, differences, estimates, over_items, verdicts

STUDY = Path(__file__).parents[2] / "docs" / "study" / "results.csv"
DRAWS = 4_000
values = st.lists(st.integers(-1000, 1000).map(lambda n: n / 1000), min_size=3, max_size=6)
Draw = Callable[[np.random.Generator, tuple[int, int]], Any]
# What token F1, CIDEr-D and losses look like over seeds, and worse; and shares of exact captions of 400 test inputs.
KINDS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, size: rng.normal(0.6, 0.02, size), 0.6),
    "uniform": (lambda rng, size: rng.uniform(0.5, 0.7, size), 0.6),
    "skewed": (lambda rng, size: rng.gamma(4, 1, size), 4.0),
    "heavy tails": (lambda rng, size: rng.standard_t(4, size), 0.0),
    "1 % exact": (lambda rng, size: rng.binomial(400, 0.01, size) / 400, 0.01),
    "10 % exact": (lambda rng, size: rng.binomial(400, 0.1, size) / 400, 0.1),
}


def coverage(draw: Draw, mean: float, n: int) -> float:
    """How often the interval over n seeds holds the true mean, among those that there are."""
    found = estimates(draw(np.random.default_rng(n), (DRAWS, n)).tolist())
    known = [(e.low, e.high) for e in found if e is not None and e.low is not None and e.high is not None]
    return float(np.mean([low <= mean <= high for low, high in known]))


@pytest.mark.parametrize("kind", KINDS)
def test_with_five_seeds_at_least_93_percent_of_intervals_hold_the_true_mean(kind: str) -> None:
    assert coverage(*KINDS[kind], 5) >= 0.93 - 2 * 0.004  # two standard errors of the simulation


@pytest.mark.parametrize("n", [3, 4, 10, 20])
def test_of_normal_values_95_percent_whatever_the_number_of_seeds(n: int) -> None:
    assert coverage(*KINDS["normal"], n) == pytest.approx(0.95, abs=0.011)


def test_the_values_of_the_study_look_normal_over_seeds() -> None:
    """Standardised within a setting, n normal values have skewness 0 and kurtosis 3 (n - 1) / (n + 1): 2 with five."""
    with STUDY.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["sweep_name"] == "tied"]
    by_setting: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        setting = row["fewshot.shots"], row["cross_attention.d_k"]
        by_setting.setdefault(setting, []).append(float(row["metrics.token_f1"]))
    assert {len(several) for several in by_setting.values()} == {5}
    standard = np.concatenate([stats.zscore(several) for several in by_setting.values()])
    assert stats.skew(standard) == pytest.approx(0, abs=0.5)
    assert stats.kurtosis(standard, fisher=False) == pytest.approx(2, abs=0.4)


@settings(max_examples=50, deadline=None)
@given(values)
def test_an_interval_is_students(row: list[float]) -> None:
    (estimate,) = estimates([row])
    assert estimate is not None
    assert estimate.n == len(row)
    assert estimate.mean == pytest.approx(np.mean(row))
    if len(set(row)) == 1:
        assert (estimate.low, estimate.high) == (None, None), "values that are alike say nothing about others"
    else:
        expected = stats.t.interval(0.95, len(row) - 1, np.mean(row), stats.sem(row))
        assert (estimate.low, estimate.high) == pytest.approx(expected)


@pytest.mark.parametrize("row", [[0.4], [0.4, 0.6]])
def test_below_three_seeds_there_is_a_mean_and_no_interval(row: list[float]) -> None:
    (estimate,) = estimates([row])
    assert estimate == Estimate(sum(row) / len(row), None, None, len(row))
    assert estimate.verdict == "unknown"


def test_no_values_give_no_estimate() -> None:
    assert estimates([[], [0.5]])[0] is None
    assert over_items(0.0, []) is None


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    rows = [[0.5, 0.25, 0.75], [1.0, 2.0, 4.0, 8.0], [0.1]]
    assert [estimates([row])[0] for row in rows] == estimates(rows)


def test_the_verdict_of_one_claim_is_that_of_its_interval() -> None:
    intervals = ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), (0.0, 0.1))
    single = [Estimate((low + high) / 2, low, high, 3) for low, high in intervals]
    assert [claim.verdict for claim in single] == ["above", "below", "either", "either"]
    assert [verdicts([claim])[0] for claim in single[:3]] == ["above", "below", "either"]
    assert verdicts([single[0]], bound=0.15) == ["either"]
    assert verdicts([single[0]], bound=0.3) == ["below"]


def test_many_claims_are_judged_by_holms_steps() -> None:
    """Five p-values by scipy: 0.05 / 5 for the smallest, 0.05 / 4 for the next, and so on until one is too large."""
    rows = [[1.0, 1.01, 1.02], [1.0, 1.1, 1.2], [1.0, 1.4, 1.9], [0.0, 0.1, 0.2], [0.5, 0.5, 0.5]]
    claims = [claim for claim in estimates(rows) if claim is not None]
    p_values = [float(stats.ttest_1samp(row, 0).pvalue) for row in rows[:4]]
    assert p_values[0] < p_values[1] < 0.05 / 3
    assert 0.05 / 2 < p_values[2] < 0.05, "its own interval lies above 0"
    assert claims[2].verdict == "above"
    assert verdicts(claims) == ["above", "above", "either", "either", "unknown"]


def test_of_many_true_nulls_none_is_refuted_in_95_percent_of_tables() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        table = rng.normal(size=(20, 5)) + rng.normal(size=5)  # seeds are shared, so the claims are related
        claims = [claim for claim in estimates(table.tolist()) if claim is not None]
        wrong += any(side in ("above", "below") for side in verdicts(claims))
    assert wrong / 400 <= 0.05 + 2 * 0.011


def without_each(values: np.ndarray) -> list[float]:
    """The mean of the values without each of them."""
    return list((values.sum() - values) / (len(values) - 1))


def test_the_interval_of_a_mean_over_inputs_is_the_normal_one() -> None:
    values = np.random.default_rng(0).uniform(size=50)
    estimate = over_items(values.mean(), without_each(values))
    assert estimate is not None
    expected = stats.norm.interval(0.95, values.mean(), stats.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx(expected)


def test_a_ratio_of_sums_over_inputs_has_the_spread_that_repeating_it_shows() -> None:
    """A corpus metric in small: matches / words, which is not a mean of the inputs' ratios."""
    rng = np.random.default_rng(1)
    ratios, errors = [], []
    for _ in range(500):
        words = rng.integers(3, 9, size=200)
        matches = rng.binomial(words, 0.6)
        left = (matches.sum() - matches) / (words.sum() - words)
        estimate = over_items(matches.sum() / words.sum(), left.tolist())
        assert estimate is not None
        assert estimate.high is not None
        ratios.append(estimate.mean)
        errors.append((estimate.high - estimate.mean) / 1.959964)
    assert np.mean(errors) == pytest.approx(np.std(ratios), rel=0.1)


def test_verdicts_over_inputs_are_normal_ones() -> None:
    claims = [Estimate(mean, mean - 1.959964, mean + 1.959964, 400) for mean in (2.3, 2.2, 1.0)]
    # Two-sided p-values of 2.3, 2.2 and 1.0 standard errors: 0.021, 0.028 and 0.32; the bounds are 0.05 / 3, / 2, / 1.
    assert verdicts(claims, normal=True) == ["either"] * 3
    assert verdicts([claims[0], claims[2]], normal=True) == ["above", "either"]


@pytest.mark.parametrize("n", [LEAST_ITEMS, 400])
def test_over_inputs_too_at_least_93_percent(n: int) -> None:
    """Token F1 of an input: often 0, often 1, and between."""
    rng = np.random.default_rng(n)
    drawn = rng.choice([0.0, 0.25, 0.5, 0.75, 1.0], p=[0.2, 0.15, 0.25, 0.25, 0.15], size=(2_000, n))
    held = []
    for row in drawn:
        estimate = over_items(row.mean(), without_each(row))
        assert estimate is not None
        assert estimate.low is not None
        assert estimate.high is not None
        held.append(estimate.low <= 0.5 <= estimate.high)
    assert np.mean(held) >= 0.93 - 2 * 0.006


def test_few_inputs_give_no_interval() -> None:
    estimate = over_items(0.5, without_each(np.array([0.0, 1.0] * (LEAST_ITEMS // 2 - 1))))
    assert estimate is not None
    assert estimate.low is None


def test_differences_pair_shared_units_only() -> None:
    first: dict[Unit, float] = {(0, 0): 0.5, (1, 1): 0.75, (2, 2): 0.25}
    second: dict[Unit, float] = {(1, 1): 0.25, (0, 0): 0.25, (7, 7): 0.0}
    assert differences(first, second) == [0.25, 0.5]


def test_pairing_removes_what_both_settings_share() -> None:
    easy: dict[Unit, float] = {(seed, seed): level for seed, level in enumerate((0.2, 0.5, 0.9))}
    harder = {unit: value - 0.125 - unit[1] / 1000 for unit, value in easy.items() if unit[1] is not None}
    (paired,) = estimates([differences(harder, easy)])
    assert paired is not None
    assert (paired.low, paired.high) == pytest.approx((-0.1285, -0.1235), abs=5e-4)
