"""What happens when the loss becomes NaN, infinite or explodes: the stage stops, or rolls back to a lower rate.

Rolling back must not depend on the clock, or the result would. So with `trainer.on_nan=rollback` a checkpoint is kept
every `GOOD_EVERY` steps, beside the one that is saved by the clock, and only that one is rolled back to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch

from lockdec.distributed import ranks
from lockdec.errors import LockdecError
from lockdec.store import CHECKPOINT, GOOD_CHECKPOINT

EXPLODED = 1000.0  # times the stage's first loss, or this where that was below 1
GOOD_EVERY = 100  # steps
MOST_ROLLBACKS = 5  # if a rate 32 times lower still diverges, the rate is not the cause


class DivergedError(LockdecError):
    """The loss has diverged; the message names stage, step, learning rate and the last good checkpoint."""

    agreed = True  # every rank sees the mean loss


class Divergence(L.Callback):
    """Ends an attempt to train at the first loss that is not finite or has exploded.

    Args:
        stage: its name, for messages.
        folder: of the unfinished artifact.
        rollback: whether to keep the checkpoint that `retreat` returns to.

    Attributes:
        rollbacks: the steps at which the loss diverged on the way to the present weights; each has halved the rate.
    """

    def __init__(self, stage: str, folder: Path, rollback: bool) -> None:
        self.stage, self.folder, self.rollback = stage, folder, rollback
        self.rollbacks: list[int] = []
        self._first: float | None = None
        self._decided: list[int] = []
        self._broken = 0

    @property
    def good(self) -> Path:
        """The checkpoint that `retreat` returns to."""
        return self.folder / GOOD_CHECKPOINT

    def retreat(self, error: DivergedError) -> None:
        """Prepare another attempt, from the last good checkpoint at half the learning rate.

        Raises:
            DivergedError: there have been too many.
        """
        if not self.rollback or len(self.rollbacks) >= MOST_ROLLBACKS:
            raise error
        self._decided = [*self.rollbacks, self._broken]

    def forget(self) -> None:
        """Begin the stage anew."""
        self.rollbacks, self._decided, self._first = [], [], None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for _ in self._decided[len(self.rollbacks) :]:
            for config in trainer.lr_scheduler_configs:
                scheduler: Any = config.scheduler
                scheduler.base_lrs = [rate / 2 for rate in scheduler.base_lrs]
            for optimizer in trainer.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] /= 2
        if len(self._decided) > len(self.rollbacks):
            self.rollbacks = self._decided
        if self.rollback and not ranks.agree(self.good.exists()):
            trainer.save_checkpoint(self.good)

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, *_: Any) -> None:
        loss = float(ranks.mean(outputs["loss"] if isinstance(outputs, Mapping) else outputs))
        self._first = loss if self._first is None and math.isfinite(loss) else self._first
        if not math.isfinite(loss) or (self._first is not None and loss > EXPLODED * max(1.0, self._first)):
            self._broken = trainer.global_step
            raise DivergedError(self._explanation(loss, trainer))
        if self.rollback and trainer.global_step % GOOD_EVERY == 0 and finite(module):
            trainer.save_checkpoint(self.good)

    def _explanation(self, loss: float, trainer: L.Trainer) -> str:
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        kept = self.good if self.rollback else self.folder / CHECKPOINT
        last = f"the last good checkpoint is {kept}" if kept.is_file() else "there is no checkpoint yet"
        advice = f"lower {self.stage}.optimizer.learning_rate"
        if not self.rollback:
            advice += ", or set trainer.on_nan=rollback"
        what = f"the loss is {loss:g} at step {trainer.global_step} (learning rate {rate:.2g})"
        return f"{self.stage}: {what}; {last}; {advice}"

    def state_dict(self) -> dict[str, Any]:
        return {"first": self._first, "rollbacks": self.rollbacks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._first, self.rollbacks = state_dict["first"], list(state_dict["rollbacks"])


def finite(module: L.LightningModule) -> bool:
    """Whether no weight that trains has become NaN or infinite: only then is a checkpoint good."""
    trained = (ranks.own(weight) for weight in module.parameters() if weight.requires_grad)
    return not ranks.highest(any(not bool(torch.isfinite(weight).all()) for weight in trained))
