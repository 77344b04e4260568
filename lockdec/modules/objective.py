"""What all training objectives have in common: how they are measured, logged and optimized."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor

from lockdec.distributed import ranks
from lockdec.optimizers import optimization
from lockdec.optimizers.optimization import OptimizerConfig
from lockdec.training.watching import is_logged


class Measured(NamedTuple):
    """What a module measures on a batch.

    Attributes:
        metrics: `loss`, which a step minimises, and whatever else is logged.
        weight: over how many tokens or pictures, for the mean over validation batches.
    """

    metrics: Mapping[str, Tensor | float]
    weight: int


class Objective(L.LightningModule, ABC):
    """One training objective: a subclass defines what is measured on a batch, in training and in validation alike.

    Logged are `<stage>/<metric>`, `<stage>/val_<metric>` and the learning rate.

    Args:
        stage: the prefix of what is logged.
        optimizer: its settings.
        steps: of the whole training, for the learning rate's schedule.
    """

    def __init__(self, stage: str, optimizer: OptimizerConfig, steps: int) -> None:
        super().__init__()
        self.stage, self.optimizer, self.steps = stage, optimizer, steps

    @abstractmethod
    def measure(self, batch: Any, batch_idx: int) -> Measured:
        """The loss and what else is logged; `self.training` tells training from validation."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        metrics, _ = self.measure(batch, batch_idx)
        if is_logged(self.trainer):
            for name, value in metrics.items():
                self.log(f"{self.stage}/{name}", ranks.mean(value) if isinstance(value, Tensor) else value)
        loss = metrics["loss"]
        assert isinstance(loss, Tensor)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        metrics, weight = self.measure(batch, batch_idx)
        # Lightning divides the sum of the weights by the number of ranks, as whole numbers.
        weight *= ranks.world()
        for name, value in metrics.items():
            self.log(f"{self.stage}/val_{name}", value, batch_size=weight, sync_dist=True)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if is_logged(self.trainer):
            self.log(f"{self.stage}/learning_rate", optimizer.param_groups[0]["lr"])

    def configure_optimizers(self) -> Any:
        mixed = self.trainer.precision.endswith("-mixed")
        return optimization.configure(self.parameters(), self.optimizer, self.steps, fused=not mixed)
