"""Prediction of hidden tokens: how a text encoder is pretrained."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from lockdec.data.tokenizer import BOS_ID, EOS_ID, PAD_ID
from lockdec.modules.configuration import PretrainEncoderConfig
from lockdec.optimizers import optimization
from lockdec.training.batching import TextBatch
from lockdec.training.watching import is_logged
from lockdec.transformer.models import MaskedLanguageModel

_HIDDEN, _REPLACED = 0.8, 0.1  # of the tokens to be predicted; the rest stay as they are


def hide(
    tokens: Int[Tensor, "b t"], share: float, mask_id: int, generator: torch.Generator | None = None
) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """Choose tokens to be predicted, and hide most of them (Devlin et al. 2019, 3.1).

    Args:
        tokens: BOS, text, EOS, padding; only tokens of the text are chosen, and of every text at least one.
        share: of the tokens, how many are chosen.
        mask_id: what a hidden token becomes; one above all others.
        generator: of the luck; torch's global one where not given.

    Returns:
        The tokens as the encoder reads them, and which are to be predicted.
    """
    luck, kind = torch.rand(2, *tokens.shape, generator=generator).to(tokens.device)
    of_text = (tokens != PAD_ID) & (tokens != BOS_ID) & (tokens != EOS_ID)
    luck = luck.masked_fill(~of_text, 2.0)
    chosen = of_text & ((luck < share) | (luck == luck.amin(dim=1, keepdim=True)))
    others = torch.randint(EOS_ID + 1, mask_id, tokens.shape, generator=generator).to(tokens.device)
    read = torch.where(chosen & (kind < _HIDDEN), mask_id, tokens)
    return torch.where(chosen & (kind >= _HIDDEN) & (kind < _HIDDEN + _REPLACED), others, read), chosen


class MaskedLanguageModeling(L.LightningModule):
    """Trains all of a masked language model on texts.

    Args:
        model: its vocabulary has one more token than the text: the mask, which is the last.
        stage: the prefix of what is logged.
    """

    def __init__(self, model: MaskedLanguageModel, config: PretrainEncoderConfig, stage: str) -> None:
        super().__init__()
        self.model, self.config, self.stage = model, config, stage

    def forward(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t vocab"]:
        """What belongs at each position."""
        logits: Tensor = self.model(tokens, tokens != PAD_ID)
        return logits

    def training_step(self, batch: TextBatch, batch_idx: int) -> Tensor:
        loss, accuracy, _ = self._measure(batch.tokens)
        self.log(f"{self.stage}/loss", loss)
        self.log(f"{self.stage}/accuracy", accuracy)
        return loss

    def validation_step(self, batch: TextBatch, batch_idx: int) -> None:
        loss, accuracy, chosen = self._measure(batch.tokens, torch.Generator().manual_seed(batch_idx))
        self.log(f"{self.stage}/val_loss", loss, batch_size=chosen)
        self.log(f"{self.stage}/val_accuracy", accuracy, batch_size=chosen)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if is_logged(self.trainer):
            self.log(f"{self.stage}/learning_rate", optimizer.param_groups[0]["lr"])

    def configure_optimizers(self) -> Any:
        return optimization.configure(self.parameters(), self.config.optimizer, self.config.steps)

    def _measure(
        self, tokens: Int[Tensor, "b t"], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, int]:
        mask_id = self.model.encoder.config.vocab_size - 1
        read, chosen = hide(tokens, self.config.masked, mask_id, generator)
        logits = self.model.logits(self.model.encoder(read, tokens != PAD_ID)[chosen])  # (n, vocab)
        accuracy = (logits.detach().argmax(-1) == tokens[chosen]).float().mean()
        return F.cross_entropy(logits, tokens[chosen]), accuracy, int(chosen.sum())
