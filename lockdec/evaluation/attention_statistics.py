"""How the decoder uses its cross-attention, measured on pairs."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from lockdec.data.tokenizer import real_targets
from lockdec.transformer.models import Encoded, LockingModel, Prefix


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
