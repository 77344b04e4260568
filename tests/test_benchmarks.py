"""The benchmark harness: subjects in processes of their own, ratios by round, memory, and the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import profile
from benchmarks.__main__ import suites
from benchmarks.side_by_side import load, measure, spread
from benchmarks.table import table


def test_a_suite_is_measured_side_by_side_and_shown_as_a_table() -> None:
    found = measure("tests.trivial_suite", threads=1, rounds=2)
    naps = found["subjects"]
    assert set(naps) == {"lockdec", "napper", "late"}
    for name, subject in naps.items():
        work = 2 if name == "lockdec" else 1
        assert subject["per_second"]["median"] <= work / 0.02  # nobody wakes early
        # A step of a million operations in 20 ms or more is 0.05 GFLOP/s or less.
        assert 0 < subject["share_of_peak"]["median"] <= 0.05 / found["matmul_gflops"] * 1.5
        assert ("ratio" in subject) == (name != "lockdec")
    ratio = naps["napper"]["ratio"]
    assert ratio["low"] <= ratio["median"] <= ratio["high"]
    # Both sleep equally long; two turns of 20 naps each would have to differ by a factor of two.
    assert 1 < ratio["median"] < 4
    assert naps["late"]["peak_memory_mb"] - naps["lockdec"]["peak_memory_mb"] == pytest.approx(199, abs=20)

    section = found | {"measured": "today", "machine": {"device": "a machine"}, "versions": {"Python": "3"}}
    rows = {line.split(" | ")[0].strip("| "): line for line in table(section).splitlines() if line.startswith("| ")}
    assert "3: **missed**" in rows["late"]
    assert "1.5: " in rows["napper"]
    assert "goal 1000: met" in rows["napper"]
    assert "a machine, 1 thread, in 2 rounds" in table(section)


def test_the_quartiles_are_those_of_the_rounds() -> None:
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == {"median": 3.0, "low": 2.0, "high": 4.0}


def test_every_suite_of_the_folder_keeps_the_contract() -> None:
    assert set(suites()) <= {path.stem for path in Path("benchmarks").glob("*.py")}
    for name in suites():
        suite = load(name)
        assert suite.TITLE
        assert suite.UNIT
        assert set(suite.GOALS) <= {*suite.subjects(), "matmul"} - {"lockdec"}


def test_a_profile_shares_out_all_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "SECONDS", 0.1)
    found = profile.profiled("tests.trivial_suite")
    assert found["milliseconds"] >= 20  # a nap
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert found["shares"][profile.OUTSIDE] > 0.9  # it sleeps
    assert "ms a step, 2 threads." in table({**found, "threads": 2})


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("aten::addmm", "matrix products"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "fused attention"),
        ("aten::index_select", "copies and layout"),
        ("aten::argmax", profile.OTHER),
    ],
)
def test_operations_count_by_the_kind_of_their_work(operation: str, expected: str) -> None:
    assert profile.kind(operation) == expected
