"""A loss that diverges: the error says how to continue, and rollback does not depend on time."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lockdec.store import CHECKPOINT
from lockdec.training import divergence
from lockdec.training.divergence import DivergedError
from lockdec.training.fit import fit
from tests.training.test_fit import CPU, Line, Steps

ROLLBACK = dataclasses.replace(CPU, on_nan="rollback")


class Breaks(Line):
    """Its loss is what `loss` says at step 7 while the learning rate is above `bearable`."""

    def __init__(self, loss: float, bearable: float, dies_at: int = -1) -> None:
        super().__init__()
        self.loss, self.bearable, self.dies_at = loss, bearable, dies_at

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if self.global_step == self.dies_at:
            raise KeyError("dead")
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        loss = super().training_step(batch, batch_idx)
        return loss * self.loss if self.global_step == 7 and rate > self.bearable else loss


def train(folder: Path, module: Line, trainer: Any = ROLLBACK) -> dict[str, float]:
    folder.mkdir(exist_ok=True)
    return fit(
        module, Steps(), stage="stage", folder=folder, loggers=(), steps=20, seed=3, clip_norm=1.0, trainer=trainer
    )


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 1e6])
def test_a_broken_loss_names_stage_step_rate_and_the_last_good_checkpoint(tmp_path: Path, loss: float) -> None:
    with pytest.raises(DivergedError) as error:
        train(tmp_path, Breaks(loss, bearable=0), CPU)
    said = str(error.value)
    assert said.startswith("stage: the loss is ")
    assert " at step 8 (learning rate 0.09" in said
    assert f"the last good checkpoint is {tmp_path / CHECKPOINT}" in said
    assert "lower stage.optimizer.learning_rate, or set trainer.on_nan=rollback" in said
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["global_step"] == 7


def test_rollback_continues_at_half_the_rate_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "GOOD_EVERY", 5)
    straight = train(tmp_path / "straight", Line(), CPU)
    logged = train(tmp_path / "back", Breaks(float("nan"), bearable=0.06))
    assert (logged["stage/rollbacks"], logged["stage/rolled_back_at"]) == (1, 8)
    assert not {"stage/rollbacks", "stage/rolled_back_at"} & straight.keys()
    with (tmp_path / "back" / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["10", "20"]
    assert "rollbacks" not in json.dumps(train(tmp_path / "never", Line()))


def test_rollback_ends_the_same_wherever_it_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether last.ckpt is from before the break, from after it, or missing."""
    monkeypatch.setattr(divergence, "GOOD_EVERY", 5)
    whole = Breaks(float("nan"), bearable=0.03)
    assert train(tmp_path / "whole", whole)["stage/rollbacks"] == 2
    for dies_at in (6, 9, 18):
        for seconds in (0.0, 1000.0):
            folder, trainer = (
                tmp_path / f"{dies_at}-{seconds}",
                dataclasses.replace(ROLLBACK, checkpoint_seconds=seconds),
            )
            with pytest.raises(KeyError, match="dead"):
                train(folder, Breaks(float("nan"), bearable=0.03, dies_at=dies_at), trainer)
            again = Breaks(float("nan"), bearable=0.03)
            assert train(folder, again, trainer)["stage/rollbacks"] == 2
            assert again.value.equal(whole.value), (dies_at, seconds)


def test_rollback_gives_up_after_a_few(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"learning rate 0\.0029"):
        train(tmp_path, Breaks(float("nan"), bearable=0))
    assert torch.load(tmp_path / "good.ckpt", weights_only=True)["global_step"] == 0
