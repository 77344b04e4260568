"""Every precision, optimizer and schedule that a config can name trains for real."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from lockdec.config.schema import PRECISIONS
from lockdec.optimizers.optimization import OPTIMIZERS, SCHEDULES
from tests.conftest import run_tiny

CHOICES = [
    ("32-true", "muon", "constant"),
    ("bf16-mixed", "adamw", "cosine"),
    ("bf16-mixed", "muon", "inverse_square_root"),
]


def test_every_choice_occurs() -> None:
    """16-mixed needs a GPU; with one, it takes the way of bf16-mixed."""
    assert {choice[0] for choice in CHOICES} == {*PRECISIONS} - {"16-mixed"}
    assert {choice[1] for choice in CHOICES} == {*OPTIMIZERS}
    assert {choice[2] for choice in CHOICES} == {*SCHEDULES}


@pytest.mark.parametrize("choice", CHOICES, ids="-".join)
def test_it_trains(choice: tuple[str, str, str], tmp_path: Path) -> None:
    """With clipping, which Lightning refuses for a fused optimizer in 16-bit mixed precision."""
    precision, kind, schedule = choice
    trained = run_tiny(
        tmp_path,
        "x",
        f"trainer.precision={precision}",
        f"finetune.optimizer.kind={kind}",
        f"finetune.optimizer.schedule={schedule}",
        f"pretrain.optimizer.schedule={schedule}",
        "pretrain.steps=3",
        "finetune.steps=3",
        "data.limit=64",
        "fewshot.shots=8",
    )
    assert math.isfinite(trained.result["metrics"]["loss"])
