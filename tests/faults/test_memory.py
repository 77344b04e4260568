"""Memory that runs out: the error says what to lower, and a sweep goes on with its next cell."""

from __future__ import annotations

from pathlib import Path

from tests.faults.causes import Fault
from tests.faults.warm import Warm


def test_a_host_out_of_memory_says_which_batch_and_what_to_lower_and_the_sweep_continues(
    warm: Warm, tmp_path: Path
) -> None:
    """A cell asks for a model, and then a run for batches, that do not fit into what its process may have."""
    limits = {"RLIMIT_AS": warm.address_space() + 4_500_000_000}
    wide = ("decoder.d_ff=64,40000000", "pipeline.order=[pretrain]", "pretrain.steps=3")
    command = warm.start(tmp_path / "outputs", "-m", *wide, fault=Fault(limits=limits))
    assert command.wait() == 1
    assert "1 of 2 cells done" in command.printed
    assert "pretrain: out of memory" in command.printed
    assert "lower pretrain.batch_tokens=512" in command.printed
    batches = ("pretrain.batch_tokens=20000000", "decoder.d_ff=600000")
    command = warm.start(tmp_path / "more", *batches, *wide[1:], fault=Fault(limits=limits))
    assert command.wait() == 1
    assert "pretrain: out of memory on a batch of tokens " in command.printed, command.printed
