"""Logs how the decoder uses its cross-attention while it is trained."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from jaxtyping import Int
from torch import Tensor

from lockdec.distributed import ranks
from lockdec.evaluation.attention_statistics import attention_statistics, gates
from lockdec.modules.losses import next_token_loss
from lockdec.training.watching import log
from lockdec.transformer.models import Encoded, LockingModel, Prefix

MEASURE_EVERY = 100  # steps


class AttentionStatistics(L.Callback):
    """Logs the loss, `attention_statistics` and `gates` on a few validation pairs, under the stage's name.

    Args:
        tokens: BOS, prompt, caption, EOS, padding.
        encoded: the states of the captions' inputs.
        prompt_length: how many tokens the prompt has.
    """

    def __init__(
        self, stage: str, tokens: Int[Tensor, "b t"], encoded: Encoded, eos_id: int, prompt_length: int = 0
    ) -> None:
        self.stage, self.tokens, self.encoded, self.eos_id, self.prompt_length = (
            stage,
            tokens,
            encoded,
            eos_id,
            prompt_length,
        )
        self._prefix: Prefix | None = None

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        if not trainer.loggers or (trainer.global_step % MEASURE_EVERY and trainer.global_step < trainer.max_steps):
            return
        model = module.model
        assert isinstance(model, LockingModel)
        device = next(model.parameters()).device
        tokens = self.tokens.to(device)
        encoded = Encoded(self.encoded.states.to(device), self.encoded.mask.to(device))
        model.eval()  # the next training step sets the mode again
        with torch.no_grad():
            if self._prefix is None and not ranks.several():  # the layers of sharded models are not whole
                self._prefix = model.prefix(tokens[:, :-1], layers) if (layers := model.frozen_layers) else None
            prefix, prompt_length = self._prefix, self.prompt_length
            loss = next_token_loss(model, tokens, self.eos_id, encoded, prefix=prefix, prompt_length=prompt_length)[0]
            seen = attention_statistics(model, tokens, encoded, self.eos_id, prefix, prompt_length)
            measured = {"val_loss": float(loss)} | seen | gates(model)
        log(trainer, {f"{self.stage}/{name}": value for name, value in measured.items()})
