"""Cross-entropy over a large vocabulary without all logits at once.

The logits of 32 captions of 200 tokens over 152,000 tokens take 3.9 GB, and their gradients as much again. Here they
are computed for some positions at a time. Where the head is frozen, the gradients of hidden states are computed with
them, so nothing is computed twice; where it learns, its logits are computed again when their gradients are due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

MOST = 2**24  # logits at a time: 67 MB, of which cross-entropy and its gradient need four times as much
IGNORED = -100  # what stands for a target where there is none

Head = Callable[[Tensor], Tensor]  # hidden states (n, d_model) -> logits (n, vocab)


def chunks(positions: int, vocab_size: int) -> Iterator[slice]:
    """Slices over all positions, each with at most `MOST` logits; a single one where the vocabulary is small."""
    size = max(1, MOST // vocab_size)
    return (slice(start, min(start + size, positions)) for start in range(0, positions, size))


def cross_entropy(
    head: Head,
    hidden: Float[Tensor, "n d_model"],
    wanted: Int[Tensor, " n"],
    vocab_size: int,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats of the logits that a head makes of hidden states, in float32.

    Args:
        wanted: the targets; IGNORED where there is none.
    """

    def loss(part: Tensor, targets: Tensor, reduction: str) -> Tensor:
        logits = head(part).float()
        return F.cross_entropy(
            logits, targets, ignore_index=IGNORED, label_smoothing=label_smoothing, reduction=reduction
        )

    parts = list(chunks(len(wanted), vocab_size))
    if len(parts) == 1:
        return loss(hidden, wanted, "mean")
    if torch.is_grad_enabled() and head(hidden[:1].detach()).requires_grad:  # the head learns
        losses = [checkpoint(loss, hidden[part], wanted[part], "sum", use_reentrant=False) for part in parts]
        total = torch.stack(losses).sum()
    else:
        states = hidden if torch.is_grad_enabled() else hidden.detach()
        summed: Any = _Summed.apply
        total = summed(states, [(part, wanted[part]) for part in parts], loss)
    return total / (wanted != IGNORED).sum()


class _Summed(torch.autograd.Function):
    """The sum of the losses of all parts, whose gradients are computed with them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, parts: list[tuple[slice, Tensor]], loss: Callable[..., Tensor]) -> Tensor:
        learns = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if learns else None
        total = torch.zeros((), device=hidden.device)
        for part, targets in parts:
            if gradient is None:
                total += loss(hidden[part], targets, "sum")
                continue
            with torch.enable_grad():
                states = hidden[part].detach().requires_grad_()
                summed = loss(states, targets, "sum")
            (gradient[part],) = torch.autograd.grad(summed, states)
            total += summed.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0], None, None
