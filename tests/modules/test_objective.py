"""What all objectives share: names, means over batches, and a learning rate for every step."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from lockdec.modules.objective import Measured, Objective
from lockdec.optimizers.optimization import rate_factor
from lockdec.training.fit import fit
from lockdec.training.watching import LOG_EVERY
from tests.training.test_fit import CPU, adamw


class Mean(Objective):
    """Learns the mean of numbers."""

    def __init__(self, steps: int) -> None:
        super().__init__("stage", adamw(learning_rate=0.5, warmup_steps=15), steps)
        self.value = nn.Parameter(torch.zeros(()))

    def measure(self, batch: Tensor, batch_idx: int) -> Measured:
        return Measured({"loss": (self.value - batch).square().mean(), "largest": batch.max()}, len(batch))


def loader(batches: list[list[float]]) -> Any:
    data: Any = [torch.tensor(batch) for batch in batches]
    return torch.utils.data.DataLoader(data, batch_size=None)


class Numbers(L.LightningDataModule):
    """Forty batches to train on, and two of unequal size to validate with."""

    def train_dataloader(self) -> Any:
        return loader([[float(step)] for step in range(40)])

    def val_dataloader(self) -> Any:
        return loader([[1.0, 1.0, 1.0], [5.0]])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mean, dict[str, float], list[dict[str, str]]]:
    module, folder = Mean(steps=40), tmp_path_factory.mktemp("objective")
    metrics = fit(
        module, Numbers(), stage="stage", folder=folder, loggers=(), steps=40, seed=0, clip_norm=0.0, trainer=CPU
    )
    with (Path(folder) / "metrics.csv").open() as file:
        return module, metrics, list(csv.DictReader(file))


def test_the_learning_rate_follows_its_schedule_step_by_step(
    trained: tuple[Mean, dict[str, float], list[dict[str, str]]],
) -> None:
    module, _, rows = trained
    assert [int(row["step"]) for row in rows] == list(range(LOG_EVERY, 41, LOG_EVERY))
    for row in rows:
        expected = 0.5 * rate_factor(int(row["step"]) - 1, module.optimizer, 40)
        assert float(row["stage/learning_rate"]) == pytest.approx(expected)


def test_metrics_are_named_after_stage_and_split_and_are_means_over_what_was_measured(
    trained: tuple[Mean, dict[str, float], list[dict[str, str]]],
) -> None:
    module, metrics, rows = trained
    assert float(rows[-1]["stage/largest"]) == 39
    value = float(module.value.detach())
    assert metrics["stage/val_loss"] == pytest.approx((3 * (value - 1) ** 2 + (value - 5) ** 2) / 4, rel=1e-5)
    assert metrics["stage/val_largest"] == pytest.approx((3 * 1 + 5) / 4)
