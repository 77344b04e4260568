"""Next-token prediction on text: how a locked decoder is pretrained."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lockdec.data.tokenizer import EOS_ID, real_targets
from lockdec.distributed import ranks
from lockdec.modules.configuration import OptimizerConfig
from lockdec.optimizers import optimization
from lockdec.training.batching import TextBatch
from lockdec.training.watching import is_logged
from lockdec.transformer.fast import Packing
from lockdec.transformer.models import Encoded, LockingDecoderModel

IGNORED = -100  # what stands for a target where there is none


def next_token_loss(
    model: LockingDecoderModel,
    tokens: Int[Tensor, "b t"],
    eos_id: int,
    encoded: Encoded | None = None,
    label_smoothing: float = 0.0,
    pack: bool = False,
) -> tuple[Float[Tensor, ""], int]:
    """Mean cross-entropy in nats over the real next tokens, and how many there are.

    Logits are computed at real positions only: with short captions in a padded batch that is most of the cost saved.

    Args:
        tokens: BOS, text, EOS, padding.
        pack: compute nothing at all on padding: pays where lengths are mixed in a batch.
    """
    seen, targets, real = tokens[:, :-1], tokens[:, 1:], real_targets(tokens, eos_id)
    packing = Packing(real)
    hidden = model.real_hidden(seen, packing, encoded) if pack else packing.pack(model.hidden(seen, encoded))[0]
    logits = model.logits(hidden)  # (n, vocab)
    wanted = F.pad(targets[real], (0, packing.filling), value=IGNORED)
    return F.cross_entropy(logits, wanted, ignore_index=IGNORED, label_smoothing=label_smoothing), int(real.sum())


class LanguageModeling(L.LightningModule):
    """Trains all of a locked decoder on text.

    Args:
        model: locked.
        steps: of the whole training, for the learning rate's schedule.
        stage: the prefix of what is logged.
    """

    def __init__(self, model: LockingDecoderModel, optimizer: OptimizerConfig, steps: int, stage: str) -> None:
        super().__init__()
        self.model, self.optimizer, self.steps, self.stage = model, optimizer, steps, stage

    def configure_model(self) -> None:
        self.model = ranks.shard(self.model, self.device_mesh)

    def forward(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t vocab"]:
        """Next-token logits."""
        logits: Tensor = self.model(tokens)
        return logits

    def training_step(self, batch: TextBatch, batch_idx: int) -> Tensor:
        rows, weight = ranks.share(real_targets(batch.tokens, EOS_ID))
        tokens = batch.tokens[rows]
        loss, real = next_token_loss(self.model, tokens, EOS_ID)
        loss = weight * loss
        if is_logged(self.trainer):
            self.log(f"{self.stage}/loss", ranks.mean(loss))
            self.log(f"{self.stage}/real_token_share", real / tokens[:, 1:].numel())  # of several ranks, the first's
        return loss

    def validation_step(self, batch: TextBatch, batch_idx: int) -> None:
        rows, weight = ranks.share(real_targets(batch.tokens, EOS_ID))
        loss, real = next_token_loss(self.model, batch.tokens[rows], EOS_ID)
        self.log(f"{self.stage}/val_loss", loss, batch_size=real if weight else 0, sync_dist=True)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if is_logged(self.trainer):
            self.log(f"{self.stage}/learning_rate", optimizer.param_groups[0]["lr"])

    def configure_optimizers(self) -> Any:
        return optimization.configure(self.parameters(), self.optimizer, self.steps)
