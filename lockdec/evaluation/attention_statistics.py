"""How the decoder uses its cross-attention, measured on pairs during and after training."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from jaxtyping import Int
from torch import Tensor

from lockdec.data.tokenizer import real_targets
from lockdec.distributed import ranks
from lockdec.modules.language_modeling import next_token_loss
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


def attention_statistics(
    model: LockingModel,
    tokens: Int[Tensor, "b t"],
    encoded: Encoded,
    eos_id: int,
    prefix: Prefix | None = None,
    prompt_length: int = 0,
) -> dict[str, float]:
    """The entropy of cross-attention relative to uniform attention, and the norm of what it adds to the hidden states.

    Args:
        model: unlocked.
        tokens: BOS, prompt, caption, EOS, padding.
        prefix: of all tokens but the last, where it is known already.
        prompt_length: how many tokens the prompt has.

    Returns:
        `attention_entropy` in 0..1 (1: attention is uniform over the states) and `cross_to_residual_norm`, the norm of
        the sublayer's output over that of the hidden states it is added to. Both are means over the positions that
        predict the caption, heads and layers. Neither where the bridge does not attend to the states.
    """
    if not model.attends:
        return {}
    real = real_targets(tokens, eos_id, prompt_length)
    with torch.inference_mode():
        looks = model.attention_maps(tokens[:, :-1], encoded, prefix)
    uniform = encoded.mask.sum(dim=1).clamp(min=2).float().log()[:, None, None]
    entropies, ratios = [], []
    for look in looks:
        entropy = torch.special.entr(look.weights).sum(dim=-1) / uniform  # (b, heads, t)
        entropies.append(entropy.mean(dim=1)[real].mean())
        ratios.append((look.cross_norm / look.residual_norm)[real].mean())
    return {
        "attention_entropy": float(torch.stack(entropies).mean()),
        "cross_to_residual_norm": float(torch.stack(ratios).mean()),
    }


def gates(model: LockingModel) -> dict[str, float]:
    """`gate/<layer>`: the mean size of each layer's gate, before any tanh; empty where nothing is gated."""
    found = [(name, weight) for name, weight in model.named_parameters() if name.endswith("cross_attention.gate")]
    return {f"gate/{name.split('.layers.')[-1].split('.')[0]}": float(w.detach().abs().mean()) for name, w in found}
