"""Next-token prediction of a translation, given the text: how the book's transformer is trained."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from lockdec.modules.losses import translation_loss
from lockdec.modules.objective import Measured, Objective
from lockdec.optimizers.optimization import OptimizerConfig
from lockdec.training.batching import TranslationBatch
from lockdec.transformer.models import TransformerModel


class Translation(Objective):
    """Trains all of a transformer on pairs.

    Args:
        label_smoothing: 0 <= value < 1, spread over the vocabulary; in training alone.
    """

    def __init__(
        self, model: TransformerModel, optimizer: OptimizerConfig, steps: int, stage: str, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(stage, optimizer, steps)
        self.model, self.label_smoothing = model, label_smoothing

    def forward(self, source: Int[Tensor, "b s"], target: Int[Tensor, "b t"]) -> Float[Tensor, "b t vocab"]:
        """Next-token logits."""
        logits: Tensor = self.model(source, target)
        return logits

    def measure(self, batch: TranslationBatch, batch_idx: int) -> Measured:
        smoothing = self.label_smoothing if self.training else 0.0
        loss, accuracy, real = translation_loss(self.model, batch.source, batch.target, smoothing)
        return Measured({"loss": loss, "accuracy": accuracy}, real)
