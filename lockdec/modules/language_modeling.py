"""Next-token prediction on text: how a locked decoder is pretrained."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from lockdec.data.tokenizer import EOS_ID, real_targets
from lockdec.distributed import ranks
from lockdec.modules.losses import next_token_loss
from lockdec.modules.objective import Measured, Objective
from lockdec.optimizers.optimization import OptimizerConfig
from lockdec.training.batching import TextBatch
from lockdec.transformer.models import Encoded, LockingDecoderModel, LockingModel, Prefix


class LanguageModeling(Objective):
    """Trains all of a locked decoder on text.

    Args:
        model: locked.
    """

    def __init__(self, model: LockingDecoderModel, optimizer: OptimizerConfig, steps: int, stage: str) -> None:
        super().__init__(stage, optimizer, steps)
        self.model = model

    def configure_model(self) -> None:
        self.model = ranks.shard(self.model, self.device_mesh)

    def forward(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t vocab"]:
        """Next-token logits."""
        logits: Tensor = self.model(tokens)
        return logits

    def measure(self, batch: TextBatch, batch_idx: int) -> Measured:
        rows, weight = ranks.share(real_targets(batch.tokens, EOS_ID))
        tokens = batch.tokens[rows]
        loss, real = next_token_loss(self.model, tokens, EOS_ID, agreed=ranks.highest)
        if not self.training:
            return Measured({"loss": loss}, real if weight else 0)
        # The share of real tokens is a number, and of several ranks the first's: worth no message between them.
        return Measured({"loss": weight * loss, "real_token_share": real / tokens[:, 1:].numel()}, real)


class PartlyFrozen(Objective):
    """Trains some weights of a decoder by the next tokens of texts. Its checkpoints contain only these weights.

    Args:
        model: its weights are frozen here, except those that the objective trains.
        eos_id: the token that ends a text.
        prefix_layers: how many layers, from the lowest on, have been run in advance where a batch has a prefix.
        prompt_length: how many tokens stand between BOS and every text; they are not learned.
    """

    strict_loading = False

    def __init__(
        self,
        model: LockingModel,
        optimizer: OptimizerConfig,
        steps: int,
        stage: str,
        *,
        eos_id: int,
        prefix_layers: int = 0,
        prompt_length: int = 0,
    ) -> None:
        super().__init__(stage, optimizer, steps)
        self.model, self.eos_id, self.prefix_layers, self.prompt_length = model, eos_id, prefix_layers, prompt_length
        self.freeze_others()

    @abstractmethod
    def freeze_others(self) -> None:
        """Freeze all weights of the model that are not trained."""

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        state = super().state_dict(*args, **kwargs)
        trainable = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        return {name: value for name, value in state.items() if name in trainable}

    def next_token_loss(
        self,
        tokens: Int[Tensor, "b t"],
        prefix: Float[Tensor, "b p d_model"] | None,
        encoded: Encoded | None = None,
        label_smoothing: float = 0.0,
    ) -> tuple[Float[Tensor, ""], int]:
        """As the function of this name, after the prompt, given the states of the layers that have been run."""
        known = None if prefix is None else Prefix(prefix, self.prefix_layers)
        return next_token_loss(
            self.model, tokens, self.eos_id, encoded, label_smoothing, True, known, self.prompt_length, ranks.highest
        )
