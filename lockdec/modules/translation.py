"""Next-token prediction of a translation, given the text: how the book's transformer is trained."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lockdec.config.schema import TranslateConfig
from lockdec.data.tokenizer import EOS_ID, real_targets
from lockdec.optimizers import optimization
from lockdec.training.batching import TranslationBatch
from lockdec.training.watching import is_logged
from lockdec.transformer.models import TransformerModel


def translation_loss(
    model: TransformerModel,
    source: Int[Tensor, "b s"],
    target: Int[Tensor, "b t"],
    label_smoothing: float = 0.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], int]:
    """Over the real next tokens: mean cross-entropy in nats, the share predicted right, and how many there are."""
    wanted, real = target[:, 1:], real_targets(target, EOS_ID)
    hidden = model.decoder.hidden(target[:, :-1], model.encode(source))  # (b, t - 1, d_model)
    logits = model.decoder.logits(hidden[real])  # (n, vocab)
    loss = F.cross_entropy(logits, wanted[real], label_smoothing=label_smoothing)
    accuracy = (logits.detach().argmax(-1) == wanted[real]).float().mean()
    return loss, accuracy, int(real.sum())


class Translation(L.LightningModule):
    """Trains all of a transformer on pairs.

    Args:
        stage: the prefix of what is logged.
    """

    def __init__(self, model: TransformerModel, config: TranslateConfig, stage: str) -> None:
        super().__init__()
        self.model, self.config, self.stage = model, config, stage

    def forward(self, source: Int[Tensor, "b s"], target: Int[Tensor, "b t"]) -> Float[Tensor, "b t vocab"]:
        """Next-token logits."""
        logits: Tensor = self.model(source, target)
        return logits

    def training_step(self, batch: TranslationBatch, batch_idx: int) -> Tensor:
        loss, accuracy, _ = translation_loss(self.model, batch.source, batch.target, self.config.label_smoothing)
        if is_logged(self.trainer):
            self.log(f"{self.stage}/loss", loss)
            self.log(f"{self.stage}/accuracy", accuracy)
        return loss

    def validation_step(self, batch: TranslationBatch, batch_idx: int) -> None:
        loss, accuracy, real = translation_loss(self.model, batch.source, batch.target)
        self.log(f"{self.stage}/val_loss", loss, batch_size=real)
        self.log(f"{self.stage}/val_accuracy", accuracy, batch_size=real)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if is_logged(self.trainer):
            self.log(f"{self.stage}/learning_rate", optimizer.param_groups[0]["lr"])

    def configure_optimizers(self) -> Any:
        return optimization.configure(self.parameters(), self.config.optimizer, self.config.steps)
