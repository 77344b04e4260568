"""Next-token prediction on text: how a locked decoder is pretrained."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lockdec.data.tokenizer import EOS_ID, real_targets
from lockdec.distributed import ranks
from lockdec.modules.objective import Measured, Objective
from lockdec.optimizers.optimization import OptimizerConfig
from lockdec.training.batching import TextBatch
from lockdec.transformer.fast import Packing, cross_entropy
from lockdec.transformer.fast.chunks import IGNORED
from lockdec.transformer.models import Encoded, LockingDecoderModel, LockingModel, Prefix


def next_token_loss(
    model: LockingModel,
    tokens: Int[Tensor, "b t"],
    eos_id: int,
    encoded: Encoded | None = None,
    label_smoothing: float = 0.0,
    pack: bool = False,
    prefix: Prefix | None = None,
    prompt: int = 0,
) -> tuple[Float[Tensor, ""], int]:
    """Mean cross-entropy in nats over the real next tokens, and how many there are.

    Logits are computed at real positions only: with short captions in a padded batch that is most of the cost saved.

    Args:
        tokens: BOS, prompt, text, EOS, padding.
        pack: compute nothing at all on padding: pays where lengths are mixed in a batch.
        prefix: of all tokens but the last, where it is known already.
        prompt: how many tokens the prompt has, which are read and not predicted.
    """
    seen, targets, real = tokens[:, :-1], tokens[:, 1:], real_targets(tokens, eos_id, prompt)
    packing = Packing(real)
    if not pack:
        hidden = packing.pack(model.hidden(seen, encoded, prefix))[0]
    elif not prompt:
        hidden = model.real_hidden(seen, packing, encoded, prefix)
    else:
        read = Packing(F.pad(real[:, prompt:], (prompt, 0), value=True))
        hidden = packing.pack(read.unpack(model.real_hidden(seen, read, encoded, prefix).unsqueeze(0)))[0]
    wanted = F.pad(targets[real], (0, packing.filling), value=IGNORED)
    loss = cross_entropy(model.logits, hidden, wanted, model.config.vocab_size, label_smoothing)
    return loss, int(real.sum())


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
        loss, real = next_token_loss(self.model, tokens, EOS_ID)
        if not self.training:
            return Measured({"loss": loss}, real if weight else 0)
        # The share of real tokens is a number, and of several ranks the first's: worth no message between them.
        return Measured({"loss": weight * loss, "real_token_share": real / tokens[:, 1:].numel()}, real)
