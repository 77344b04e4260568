"""Next-token prediction on text of a domain: how the upper layers of a locked decoder are adapted to it."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from lockdec.modules.language_modeling import PartlyFrozen
from lockdec.modules.objective import Measured
from lockdec.training.batching import TextBatch
from lockdec.transformer.models import LockingDecoderModel


class Adaptation(PartlyFrozen):
    """Trains a locked decoder above its prefix layers, and the norm at its end; all else is without dropout."""

    model: LockingDecoderModel

    def freeze_others(self) -> None:
        self.model.eval().requires_grad_(False)
        for part in (*self.model.decoder.layers[self.prefix_layers :], self.model.decoder.norm):
            part.train().requires_grad_(True)

    def forward(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t vocab"]:
        """Next-token logits."""
        logits: Tensor = self.model(tokens)
        return logits

    def measure(self, batch: TextBatch, batch_idx: int) -> Measured:
        loss, real = self.next_token_loss(batch.tokens, batch.prefix)
        return Measured({"loss": loss}, real)
