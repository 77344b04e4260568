"""The benchmark harness: subjects in processes of their own, ratios by round, memory, and the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import decoder_sizes, locked, machines, pretraining, profile
from benchmarks.__main__ import suites
from benchmarks.side_by_side import load, measure, spread
from benchmarks.table import table
from lockdec.data.tokenizer import Tokenizer
from lockdec.transformer.configuration import DecoderConfig
from lockdec.transformer.models import LockingDecoderModel


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


def recorded(rate: float, ratio: float) -> dict[str, Any]:
    """A section of a suite with one peer."""
    peer = {"per_second": {"median": rate / ratio}, "ratio": {"median": ratio}}
    return {"matmul_gflops": 100.0, "subjects": {"lockdec": {"per_second": {"median": rate}}, "peer": peer}}


def test_a_machine_is_compared_with_those_recorded_suite_by_suite() -> None:
    here = {"libraries": machines.libraries(threads=1, seconds=0.0, side=64), "walk": recorded(50.0, 1.5)}
    there = {"walk": recorded(200.0, 3.0), "swim": recorded(1.0, 1.0)}
    text = machines.compared(here, {"another": there, "a third": {"swim": recorded(1.0, 1.0)}})
    assert "| `walk` | 50 | 200 | 0.25 | peer | 1.50 | 3.00 |" in text
    assert "`swim`" not in text
    assert "Beside another (matrix product 100 to 100 GFLOP/s)" in text
    assert text.endswith("None of these suites was recorded there.")
    assert "times torch's default library" in text.splitlines()[0]
    assert "No other figures" in machines.compared(here, {})


def test_decoders_of_real_size_have_as_many_weights_as_their_models() -> None:
    """SmolLM2-135M, Llama 3.2 1B and 3B, and Mistral 7B, as their model cards count them."""
    found = {name: decoder_sizes.numbers(shape) for name, shape in decoder_sizes.LLAMA.items()}
    assert found == {"135m": 134_515_008, "1b": 1_235_814_400, "3b": 3_212_749_824, "7b": 7_241_732_096}


def test_a_checkpoint_of_random_weights_is_imported(tmp_path: Path) -> None:
    tiny = {"layers": 2, "d_model": 16, "heads": 4, "kv_heads": 2, "d_ff": 24, "vocab": 300, "tied": False}
    decoder_sizes.make_checkpoint(tiny, tmp_path / "tiny")
    model = LockingDecoderModel.from_huggingface(tmp_path / "tiny")
    assert sum(weight.numel() for weight in model.parameters()) == decoder_sizes.numbers(tiny)
    assert Tokenizer.from_huggingface(tmp_path / "tiny", 300).decode([5, 6, 7]).strip()


def test_the_quartiles_are_those_of_the_rounds() -> None:
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == {"median": 3.0, "low": 2.0, "high": 4.0}


def test_a_decoder_without_cross_attention_is_trained_beside_the_locked_one(monkeypatch: pytest.MonkeyPatch) -> None:
    small = DecoderConfig(vocab_size=50, max_len=128, d_model=16, layers=2, heads=2, d_ff=32)
    for module in (locked, pretraining):
        monkeypatch.setattr(module, "CONFIG", small)
    for build in locked.subjects().values():
        build().run()


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
