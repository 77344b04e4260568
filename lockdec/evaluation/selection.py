"""Which step of a finetuning is kept: the one with the lowest loss on a part of the support set that is held out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lockdec.distributed import ranks
from lockdec.modules.losses import next_token_loss
from lockdec.training.batching import CaptionBatch
from lockdec.training.watching import log
from lockdec.transformer.models import LockingModel, Prefix

MEASURE_EVERY = 20  # steps


class BestStep(L.Callback):
    """Measures the loss on held-out pairs every 20 steps and after the last, and keeps the weights of the lowest.

    What it keeps is part of the checkpoint. Step k is measured when step k + 1 starts, and so never before the
    checkpoint of step k is written: a resumed training measures all that the checkpoint does not know.

    Args:
        batches: the held-out pairs.
        eos_id, prompt_length: as in `next_token_loss`.

    Attributes:
        step: the kept one.
        loss: its mean cross-entropy in nats per token of the held-out captions.
    """

    def __init__(self, stage: str, batches: Sequence[CaptionBatch], eos_id: int, prompt_length: int = 0) -> None:
        self.stage, self.batches, self.eos_id, self.prompt_length = stage, batches, eos_id, prompt_length
        self.step, self.loss = 0, math.inf
        self._weights: dict[str, Tensor] = {}
        self._prefixes: list[Prefix | None] = []  # of the batches

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step and trainer.global_step % MEASURE_EVERY == 0:
            self._measure(trainer, module)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._measure(trainer, module)

    def restore(self, model: LockingModel) -> None:
        """Give the trained weights of the model their values at the kept step."""
        weights = dict(model.named_parameters())
        with torch.no_grad():
            for name, kept in self._weights.items():
                weights[name].copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "loss": self.loss, "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step, self.loss, self._weights = state_dict["step"], state_dict["loss"], dict(state_dict["weights"])

    def _measure(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        model = module.model
        assert isinstance(model, LockingModel)
        device = next(model.parameters()).device
        total, count = 0.0, 0
        model.eval()  # the next training step sets the mode again
        with torch.no_grad():
            for number, batch in enumerate(self.batches):
                tokens, encoded = batch.tokens.to(device), batch.encoded.to(device)
                if len(self._prefixes) == number and not ranks.several():  # the layers of sharded models are not whole
                    layers = model.frozen_layers
                    self._prefixes.append(model.prefix(tokens[:, :-1], layers) if layers else None)
                prefix = self._prefixes[number] if self._prefixes else None
                with model.leaving_out(batch.rows.to(device)):
                    loss, real = next_token_loss(
                        model, tokens, self.eos_id, encoded, prefix=prefix, prompt_length=self.prompt_length
                    )
                total, count = total + float(loss) * real, count + real
        loss = ranks.agree(total / count)
        log(trainer, {f"{self.stage}/held_out_loss": loss})
        if loss < self.loss:
            self.step, self.loss = trainer.global_step, loss
            self._weights = {
                name: ranks.whole(weight.detach()).cpu().clone()
                for name, weight in model.named_parameters()
                if weight.requires_grad
            }
