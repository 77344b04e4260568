"""Next-token prediction on text of a domain: how the upper layers of a locked decoder are adapted to it."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from lockdec.modules.language_modeling import next_token_loss
from lockdec.modules.objective import Measured, PartlyFrozen
from lockdec.optimizers.optimization import OptimizerConfig
from lockdec.training.batching import TextBatch
from lockdec.transformer.models import LockingDecoderModel, Prefix


class Adaptation(PartlyFrozen):
    """Trains the upper layers of a locked decoder and the norm at its end; all else is frozen, without dropout.

    Args:
        model: locked.
        eos_id: the token that ends a text.
        frozen: how many layers, from the lowest on, are frozen.
        prompt: how many tokens stand between BOS and every text; they are not learned.
    """

    def __init__(
        self,
        model: LockingDecoderModel,
        optimizer: OptimizerConfig,
        steps: int,
        stage: str,
        *,
        eos_id: int,
        frozen: int,
        prompt: int = 0,
    ) -> None:
        super().__init__(stage, optimizer, steps)
        self.model, self.eos_id, self.frozen, self.prompt = model, eos_id, frozen, prompt
        model.eval().requires_grad_(False)
        for part in (*model.decoder.layers[frozen:], model.decoder.norm):
            part.train().requires_grad_(True)

    def forward(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t vocab"]:
        """Next-token logits."""
        logits: Tensor = self.model(tokens)
        return logits

    def measure(self, batch: TextBatch, batch_idx: int) -> Measured:
        prefix = None if batch.prefix is None else Prefix(batch.prefix, self.frozen)
        loss, real = next_token_loss(
            self.model, batch.tokens, self.eos_id, pack=True, prefix=prefix, prompt=self.prompt
        )
        return Measured({"loss": loss}, real)
