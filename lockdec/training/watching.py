"""What is measured beside training without changing it: throughput and gradient norms.

It goes only to the loggers, beside the stage's other metrics, and not into artifacts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lockdec.distributed import ranks

LOG_EVERY = 10  # steps between two rows of a curve; the last step has one, too
PULSE_EVERY = 10  # steps between two measurements


def log(trainer: L.Trainer, metrics: Mapping[str, float]) -> None:
    """Log at the step that has just ended; Lightning counts it from 0."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=trainer.global_step - 1)


def is_logged(trainer: L.Trainer) -> bool:
    """Whether what the current step logs is kept.

    Handing a number to Lightning costs as much as a small layer, so modules ask first.
    """
    step = trainer.global_step + 1
    return step % LOG_EVERY == 0 or step == trainer.max_steps


class Pulse(L.Callback):
    """Logs `tokens_per_second`, padding included, and `gradient_norm`, before clipping, where the module does not."""

    def __init__(self, stage: str) -> None:
        self.stage, self._tokens, self._since = stage, 0, 0.0

    def on_train_start(self, *_: Any) -> None:
        self._since = time.monotonic()

    def on_before_optimizer_step(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        name = f"{self.stage}/gradient_norm"
        if (trainer.global_step + 1) % PULSE_EVERY == 0 and name not in trainer.callback_metrics:
            norms = [ranks.whole(weight.grad.norm()) for weight in module.parameters() if weight.grad is not None]
            for logger in trainer.loggers:
                logger.log_metrics({name: float(torch.stack(norms).norm())}, step=trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        parts = [part for part in batch if isinstance(part, Tensor)] if isinstance(batch, tuple) else []
        self._tokens += sum(part.numel() for part in parts if part.dim() == 2 and not part.is_floating_point())
        if self._tokens and trainer.global_step % PULSE_EVERY == 0:
            now = time.monotonic()
            log(trainer, {f"{self.stage}/tokens_per_second": self._tokens / (now - self._since)})
            self._tokens, self._since = 0, now
