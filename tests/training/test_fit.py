"""Training: what is logged, what stops it, and what is random in a step."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from lockdec.config.schema import TrainerConfig
from lockdec.errors import LockdecError
from lockdec.optimizers import optimization
from lockdec.optimizers.optimization import OptimizerConfig
from lockdec.tracking.curves import TableLogger
from lockdec.training.fit import StepSeed, fit
from lockdec.training.watching import LOG_EVERY

CPU = TrainerConfig(accelerator="cpu", devices=1, precision="32-true", threads=None, checkpoint_seconds=0.0)


def adamw(**changes: Any) -> OptimizerConfig:
    defaults: dict[str, Any] = {
        "learning_rate": 0.1,
        "weight_decay": 0.01,
        "betas": [0.9, 0.95],
        "warmup_steps": 5,
        "schedule": "cosine",
        "clip_norm": 1.0,
    }
    return OptimizerConfig(**defaults | changes)


class Line(L.LightningModule):
    """Fits one number to the number of the step."""

    def __init__(self, breaks_at: int = -1) -> None:
        super().__init__()
        self.value, self.breaks_at = nn.Parameter(torch.zeros(1)), breaks_at

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        noise = torch.rand(1)
        loss = (self.value - noise).square().sum() / float(self.global_step != self.breaks_at)
        self.log("stage/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return optimization.configure(self.parameters(), adamw(), steps=20)


class Steps(L.LightningDataModule):
    """So many batches."""

    def __init__(self, number: int = 20) -> None:
        super().__init__()
        self.number = number

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.zeros(self.number, 1), batch_size=1)  # type: ignore[arg-type]


def train(folder: Path, module: Line) -> Line:
    fit(module, Steps(), stage="stage", folder=folder, loggers=(), steps=20, seed=3, clip_norm=1.0, trainer=CPU)
    return module


def test_the_curve_has_a_row_for_every_tenth_step(tmp_path: Path) -> None:
    train(tmp_path, Line())
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [LOG_EVERY, 2 * LOG_EVERY]
    assert all(float(row["stage/loss"]) >= 0 for row in rows)


def test_fewer_steps_than_between_two_rows_are_logged_at_their_end_and_without_a_warning(tmp_path: Path) -> None:
    table = TableLogger(tmp_path / "table.csv")
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        fit(Line(), Steps(3), stage="stage", folder=tmp_path, loggers=[table], steps=3, seed=3, clip_norm=1.0,
            trainer=CPU)  # fmt: skip
    assert [str(one.message) for one in given if "Trainer(" in str(one.message)] == []
    assert [step for step, row in table.rows.items() if "stage/loss" in row] == [3]


def test_noise_in_a_step_depends_on_the_seed_and_the_step_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = train(tmp_path / "a", Line())
    torch.rand(17)  # another state of the global generator
    assert train(tmp_path / "b", Line()).value.equal(first.value)


def test_a_loss_that_is_not_finite_stops_at_its_step(tmp_path: Path) -> None:
    with pytest.raises(LockdecError, match=r"stage: the loss is inf at step 8 .*lower stage\.optimizer\.learning_rate"):
        train(tmp_path, Line(breaks_at=7))


def test_each_step_draws_from_a_seed_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    drawn = []
    for step in (5, 6):
        monkeypatch.setattr(L.Trainer, "global_step", step)
        StepSeed(3).on_train_batch_start(trainer)
        drawn.append(torch.rand(4))
        torch.manual_seed(3 * 1_000_003 + step)
        assert torch.equal(drawn[-1], torch.rand(4))
    assert not torch.equal(*drawn)


class Steep(Line):
    """Has a gradient of 1000, and follows it at rate 1."""

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return 1000 * self.value.sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1.0)


@pytest.mark.parametrize(("clip_norm", "moved"), [(0.5, 0.5), (0.0, 1000.0)])
def test_a_gradient_is_clipped_to_its_largest_norm_and_with_0_not_at_all(
    clip_norm: float, moved: float, tmp_path: Path
) -> None:
    module = Steep()
    fit(module, Steps(), stage="stage", folder=tmp_path, loggers=(), steps=1, seed=0, clip_norm=clip_norm, trainer=CPU)
    assert module.value.item() == pytest.approx(-moved, rel=1e-4)
