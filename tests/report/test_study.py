"""Settings, lines, grids, fronts and how low, each by a derivation that can be checked by eye."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockdec.report.results import Run, read
from lockdec.report.settings import AXES
from lockdec.report.study import Study
from tests.report.runs import run_of, write_sweep

D, D_QK, D_K, D_V, D_Q = AXES

STUDENT = 4.302653  # t of 2 degrees of freedom at 97.5 %, from a table
WIGGLE = (-0.001, 0.0, 0.001, 0.0, 0.0)


def tied(losses: dict[int, float], seeds: int = 3, shots: int = 64) -> list[Run]:
    """Runs of a tied sweep whose F1 is that of d = 8 less a loss that differs little from seed to seed."""
    levels = (0.70, 0.72, 0.76, 0.71, 0.73)
    return [
        run_of(levels[seed] - loss + (0.0 if d == 8 else WIGGLE[seed]), (d, d, d), seed, shots, parameters=10 * d)
        for d, loss in (losses | {8: 0.0}).items()
        for seed in range(seeds)
    ]


def test_a_gap_is_taken_run_by_run() -> None:
    runs = [
        run_of(f1, seed=seed, controls={"locked": f1 - 0.25 - seed / 100}) for seed, f1 in enumerate((0.4, 0.6, 0.8))
    ]
    study = Study(runs)
    gap = study.estimate(study.settings[0], view="locked")
    assert gap is not None
    half = STUDENT * 0.01 / 3**0.5  # the gaps are 0.25, 0.26 and 0.27
    assert [gap.low, gap.mean, gap.high] == pytest.approx([0.26 - half, 0.26, 0.26 + half])


def test_how_low_is_the_smallest_dimension_within_the_margin() -> None:
    (finding,) = Study(tied({4: 0.0125, 2: 0.03, 1: 0.1})).how_low
    assert finding.line.axis is D
    assert D.value(finding.full) == 8
    assert finding.smallest is not None
    assert D.value(finding.smallest) == 4
    assert [round(loss.mean, 9) for _, loss in finding.losses] == [-0.1, -0.03, -0.0125]


def test_no_dimension_is_enough_below_one_that_is_not() -> None:
    (finding,) = Study(tied({6: 0.0125, 4: 0.03, 2: 0.0125, 1: 0.1})).how_low
    assert finding.smallest is not None
    assert D.value(finding.smallest) == 6
    (finding,) = Study(tied({4: 0.03, 2: 0.0125})).how_low
    assert finding.smallest is None


def test_of_sizes_at_the_margin_one_is_called_enough_in_at_most_5_percent_of_lines() -> None:
    """Seven sizes, all of which lose exactly 0.02: however many there are, few lines claim anything."""
    rng, claimed = np.random.default_rng(0), 0
    for _ in range(200):
        noise = rng.normal(0, 0.01, (7, 5)) + rng.normal(0, 0.01, 5)
        losses = {d: 0.02 + several for d, several in enumerate(noise, start=1)} | {8: np.zeros(5)}
        runs = [run_of(0.7 - several[seed], (d, d, d), seed) for d, several in losses.items() for seed in range(5)]
        claimed += Study(runs).how_low[0].smallest is not None
    assert claimed / 200 <= 0.025 + 2 * 0.011  # one side of a 95 % interval


def test_how_low_needs_the_whole_interval_above_the_margin() -> None:
    # paired losses 0, 0 and 0.03: mean -0.01, but with three seeds an interval down to -0.053
    runs = [run_of(f1, (8, 8, 8), seed) for seed, f1 in enumerate((0.7, 0.7, 0.7))]
    runs += [run_of(f1, (4, 4, 4), seed) for seed, f1 in enumerate((0.7, 0.7, 0.67))]
    (finding,) = Study(runs).how_low
    assert finding.losses[0][1].mean == pytest.approx(-0.01)
    assert finding.smallest is None


def test_how_low_claims_nothing_below_three_shared_seeds() -> None:
    assert Study(tied({4: 0.0}, seeds=2)).how_low[0].smallest is None
    runs = [run_of(0.7, (8, 8, 8), seed) for seed in (0, 1, 2)] + [run_of(0.7, (4, 4, 4), seed) for seed in (2, 3, 4)]
    assert Study(runs).how_low[0].smallest is None


def test_no_dimension_is_enough_below_one_that_was_not_compared() -> None:
    runs = tied({2: 0.0}) + [run_of(0.4, (4, 4, 4), seed) for seed in (3, 4, 5)]
    (finding,) = Study(runs).how_low
    assert finding.smallest is None
    assert [D.value(setting) for setting, _ in finding.losses] == [2]


def test_full_size_agrees_in_everything_but_the_dimensions() -> None:
    study = Study([*tied({4: 0.0}), run_of(0.9, (16, 16, 16), shots=16), run_of(0.9, (32, 32, 32), shots=64, seed=9)])
    full = {study.label(small): study.label(large) for small, large in study.full_size.items()}
    assert full["d 4 · 64 shots"] == full["d 8 · 64 shots"] == "d 32 · 64 shots"
    assert full["d 16 · 16 shots"] == "d 16 · 16 shots"


def test_lines_of_one_dimension_keep_the_others_as_large_as_they_come() -> None:
    study = Study([run_of(0.5, (8, d_k, d_v)) for d_k in (1, 2, 4) for d_v in (2, 16)])
    (line,) = study.lines(D_K)
    assert [D_K.value(setting) for setting in line.settings] == [1, 2, 4]
    assert {D_V.value(setting) for setting in line.settings} == {16}
    assert study.main_lines == study.lines(D_K)


def test_grids_leave_out_rows_and_columns_of_one_cell() -> None:
    grid = [run_of(0.5, (q, q, v)) for q in (1, 2) for v in (1, 2, 4)]
    study = Study([*grid, run_of(0.5, (16, 16, 16)), run_of(0.5, (32, 32, 32))])
    (found,) = study.grids(D_QK, D_V)
    assert {(D_QK.value(s), D_V.value(s)) for s in found.settings} == {(q, v) for q in (1, 2) for v in (1, 2, 4)}
    assert study.grids(D_Q, D_K) == []


def test_comparisons_are_of_one_choice_only() -> None:
    study = Study([*tied({4: 0.05}), *tied({4: 0.05}, shots=16)])
    found = {(c.change, study.label(c.first), study.label(c.second)): c.difference for c in study.comparisons}
    assert found.keys() == {
        ("d", "d 8 · 16 shots", "d 4 · 16 shots"),
        ("d", "d 8 · 64 shots", "d 4 · 64 shots"),
        ("shots", "d 4 · 64 shots", "d 4 · 16 shots"),
        ("shots", "d 8 · 64 shots", "d 8 · 16 shots"),
    }
    assert found["d", "d 8 · 16 shots", "d 4 · 16 shots"].low == pytest.approx(0.05 - STUDENT * 0.001 / 3**0.5)
    assert found["shots", "d 8 · 64 shots", "d 8 · 16 shots"].mean == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 8)), min_size=1, max_size=9))
def test_the_front_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    runs = [run_of(f1 / 8, shots=n + 1, parameters=size) for n, (size, f1) in enumerate(points)]
    study = Study(runs)
    front = {(s.parameters, s.values("token_f1")[0, None]) for s in study.front("token_f1", "score")}
    known = {(float(size), f1 / 8) for size, f1 in points}
    undominated = {
        (size, f1) for size, f1 in known if not any(a <= size and b >= f1 and (a, b) != (size, f1) for a, b in known)
    }
    assert front == undominated


def test_best_and_smallest_see_the_same_shots() -> None:
    study = Study([*tied({4: 0.05, 1: 0.2}), run_of(0.1, (1, 1, 1), shots=16, parameters=1)])
    assert study.best is not None
    assert study.smallest is not None
    assert study.label(study.best) == "d 8 · 64 shots"
    assert study.label(study.smallest) == "d 1 · 64 shots"


def test_estimates_are_those_of_the_files(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "s", dims=((2, 2, 2), (4, 4, 4)), shots=(16,), seeds=(0, 1, 2))
    study = Study(read([folder]).runs)
    for setting in study.settings:
        f1 = [run.number("metrics.token_f1") or 0.0 for run in setting.runs.values()]
        estimate = study.estimate(setting)
        assert estimate is not None
        half = STUDENT * stdev(f1) / 3**0.5
        assert [estimate.low, estimate.high] == pytest.approx([fmean(f1) - half, fmean(f1) + half])
