"""Caption prediction from encoder states: how an unlocked bridge is finetuned, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lockdec.data.tokenizer import real_targets
from lockdec.distributed import ranks
from lockdec.modules.language_modeling import PartlyFrozen
from lockdec.modules.objective import Measured
from lockdec.optimizers.optimization import OptimizerConfig
from lockdec.training.batching import CaptionBatch
from lockdec.training.watching import is_logged
from lockdec.transformer.encoded import present
from lockdec.transformer.models import Encoded, LockingModel


class Captioning(PartlyFrozen):
    """Trains the bridge of an unlocked decoder on pairs; the decoder is frozen.

    Args:
        model: attached and unlocked.
        eos_id, prefix_layers, prompt_length: see `PartlyFrozen`.
        label_smoothing, decoder_dropout, state_noise, state_dropout: see `lockdec.stages.finetune.FinetuneConfig`.
        apart: of several encoders side by side, the channels of each; see `perturbed`.
    """

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
        label_smoothing: float = 0.0,
        decoder_dropout: bool = False,
        state_noise: float = 0.0,
        state_dropout: float = 0.0,
        apart: Sequence[int] = (),
    ) -> None:
        super().__init__(
            model, optimizer, steps, stage, eos_id=eos_id, prefix_layers=prefix_layers, prompt_length=prompt_length
        )
        self.label_smoothing, self.decoder_dropout = label_smoothing, decoder_dropout
        self.state_noise, self.state_dropout, self.apart = state_noise, state_dropout, apart

    def freeze_others(self) -> None:
        self.model.freeze_decoder()

    def configure_model(self) -> None:
        self.model = ranks.shard(self.model, self.device_mesh)

    def forward(self, tokens: Int[Tensor, "b t"], encoded: Encoded) -> Float[Tensor, "b t vocab"]:
        """Next-token logits."""
        logits: Tensor = self.model(tokens, encoded)
        return logits

    def on_train_batch_start(self, batch: CaptionBatch, batch_idx: int) -> None:
        if self.model.training != self.decoder_dropout:
            self.model.train(self.decoder_dropout)
        for place in self.model.decoder.layers:  # what learns has a dropout of its own, which validation turns off
            place.get_submodule("cross_attention_norm").train()

    def measure(self, batch: CaptionBatch, batch_idx: int) -> Measured:
        return Measured({"loss": self.objective(batch)}, len(batch.tokens))

    def objective(self, batch: CaptionBatch) -> Float[Tensor, ""]:
        """What a step minimises: mean cross-entropy in nats, given perturbed states."""
        encoded = perturbed(batch.encoded, self.state_noise, self.state_dropout, self.apart)
        rows, weight = ranks.share(real_targets(batch.tokens, self.eos_id, self.prompt_length))
        tokens, encoded = batch.tokens[rows], Encoded(encoded.states[rows], encoded.mask[rows])
        prefix = None if batch.prefix is None else batch.prefix[rows]
        with self.model.leaving_out(batch.rows[rows]):
            loss, _ = self.next_token_loss(tokens, prefix, encoded, self.label_smoothing)
        return weight * loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        if is_logged(self.trainer):
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            self.log(f"{self.stage}/gradient_norm", ranks.whole(nn.utils.get_total_norm(gradients)))


def perturbed(encoded: Encoded, noise: float, dropout: float, apart: Sequence[int] = ()) -> Encoded:
    """A share of the states dropped, and Gaussian noise added to the others: regularisation for small support sets.

    Args:
        apart: of several encoders side by side, the channels of each: only those of its own encoder get noise.
    """
    if dropout:
        encoded = Encoded(encoded.states, encoded.mask & ~dropped(encoded.mask, dropout)).trimmed()
    if not noise:
        return encoded
    added = torch.randn_like(encoded.states).mul_(noise)
    if apart:
        added *= present(encoded.states, apart)
    return Encoded(added.add_(encoded.states), encoded.mask)


def dropped(mask: Bool[Tensor, "b s"], share: float) -> Bool[Tensor, "b s"]:
    """A random choice of each input's states: this share of them, rounded up or down at random, and never all.

    Dropping each state independently would drop as many on average, but a batch is as wide as its fullest row.
    """
    noise = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, 2.0)  # what is not there comes last
    real = mask.sum(1, keepdim=True)
    many = (share * real + torch.rand(real.shape, device=mask.device)).long().clamp(max=real - 1)
    return mask & (noise < noise.sort(1).values.gather(1, many.clamp(min=0)))
