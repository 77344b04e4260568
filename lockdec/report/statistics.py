"""Means with intervals that cover, and claims that hold together.

Over seeds, an interval is Student's: mean +- t * s / sqrt(n), with the t of n - 1 degrees of freedom (Student 1908). It
covers what a seed changes, the support set and the initialisation of the cross-attention: every seed is evaluated on
the same inputs. It covers the true mean in 95 % of cases, with three seeds as with ten, where values are normal, as
those of the study are (tests/report/test_statistics.py), and in at least 93 % with five seeds where they are uniform,
moderately skewed, or shares of a few exact captions. What few seeds cost is width: t is 4.3 with three seeds, 2.8 with
five and 2.3 with ten. Below three seeds there is no interval, nor where all seeds have the same value, which says
nothing about how much others would differ.

A single run has an interval over its test inputs instead (`over_items`): what other inputs of the same kind would give
with these weights. It says nothing about other seeds. It is the jackknife's (Efron and Tibshirani 1993, chapter 11),
which for a mean is mean +- 1.96 * s / sqrt(n) and holds for smooth functions of means, as BLEU and chrF are, too.

An interval speaks about one quantity. Where many claims are made at once, `verdicts` corrects for their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist, fmean, stdev

LEAST_SEEDS = 3
LEAST_ITEMS = 30  # from which on a mean over inputs is about normal
CONFIDENCE = 0.95
NORMAL = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / 2)  # standard errors of a normal interval to each side

Unit = tuple[int | None, int | None]
"""What makes two runs of different settings a pair: (seed, support_seed)."""


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` values and its 95 % interval, None where the values give none."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def verdict(self) -> str:
        """Which side of 0 the interval lies on: `above`, `below`, `either`; `unknown` without an interval.

        It is a claim of its own; see `verdicts` for several.
        """
        if self.low is None or self.high is None:
            return "unknown"
        return "above" if self.low > 0 else "below" if self.high < 0 else "either"


def estimates(rows: Sequence[Sequence[float]]) -> list[Estimate | None]:
    """One estimate a row, each row the values of one quantity over seeds; None for an empty row."""
    return [_over_seeds(row) if row else None for row in rows]


def over_items(whole: float, without_each: Sequence[float]) -> Estimate | None:
    """A quantity over all test inputs of a run, as if they were drawn independently of each other.

    Where several inputs are variants of one, as the skin tones of a drawing are, the interval is too narrow.

    Args:
        whole: the quantity over all inputs.
        without_each: the same without each of the inputs in turn.
    """
    n = len(without_each)
    if not n:
        return None
    # The jackknife's pseudo-values have the spread of values whose mean the quantity would be.
    spread = (n - 1) * stdev(without_each) if n >= LEAST_ITEMS else 0.0
    if spread <= 1e-12 * n * max(map(abs, without_each)):  # all alike, up to rounding
        spread = 0.0
    return _estimate(whole, spread, n, NORMAL)


def verdicts(claims: Sequence[Estimate], bound: float = 0.0, normal: bool = False) -> list[str]:
    """Which side of `bound` each quantity lies on, as `Estimate.verdict` says it, for all claims of a table.

    In 95 % of cases none of these verdicts is wrong, however many and however related they are: the p-values of
    Student's tests are compared step by step with 5 % divided by the number of claims that are left (Holm 1979).

    Args:
        claims: means over seeds, or quantities over the inputs of a run.
        normal: they are over inputs, whose intervals are normal.
    """
    p_value = _normal_p_value if normal else _p_value
    found = ["unknown" if claim.low is None else "either" for claim in claims]
    judged = sorted((p_value(claim, bound), place) for place, claim in enumerate(claims) if claim.low is not None)
    for done, (chance, place) in enumerate(judged):
        if chance > (1 - CONFIDENCE) / (len(judged) - done):
            break
        found[place] = "above" if claims[place].mean > bound else "below"
    return found


def differences(minuend: Mapping[Unit, float], subtrahend: Mapping[Unit, float]) -> list[float]:
    """`minuend - subtrahend` for every unit that both have, in the order of units."""
    shared = minuend.keys() & subtrahend.keys()
    return [minuend[unit] - subtrahend[unit] for unit in sorted(shared, key=repr)]


def _over_seeds(values: Sequence[float]) -> Estimate:
    n = len(values)
    spread = stdev(values) if n >= LEAST_SEEDS else 0.0
    if spread <= 1e-12 * max(map(abs, values)):  # all alike, up to rounding
        spread = 0.0
    return _estimate(fmean(values), spread, n, _student(n - 1))


def _estimate(mean: float, spread: float, n: int, factor: float) -> Estimate:
    if not spread:
        return Estimate(mean, None, None, n)
    half = factor * spread / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


@cache
def _student(freedom: int) -> float:
    """The factor of Student's interval: how many standard errors it reaches to each side."""
    if freedom < LEAST_SEEDS - 1:
        return math.nan  # no interval is made of it
    from scipy.special import stdtrit  # imported here, so that a run's report does not wait for it

    return float(stdtrit(freedom, 1 - (1 - CONFIDENCE) / 2))


def _p_value(claim: Estimate, bound: float) -> float:
    """Of Student's two-sided test of the mean against `bound`."""
    from scipy.special import stdtr

    assert claim.low is not None
    error = (claim.mean - claim.low) / _student(claim.n - 1)
    return 2 * float(stdtr(claim.n - 1, -abs(claim.mean - bound) / error))


def _normal_p_value(claim: Estimate, bound: float) -> float:
    """Of the two-sided test of a quantity over inputs against `bound`."""
    assert claim.low is not None
    return 2 * NormalDist().cdf(-abs(claim.mean - bound) * NORMAL / (claim.mean - claim.low))
