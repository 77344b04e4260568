"""Cross-entropy over a large vocabulary without all logits at once.

The logits of 32 captions of 200 tokens over 152,000 tokens take 3.9 GB, and their gradients as much again. Here they
are computed for some positions at a time. Where the head is frozen, the gradients of hidden states are computed with
them, so nothing is computed twice, and the gradients of logits by their formula, which takes half the memory and fewer
passes than autograd; where it learns, its logits are computed again when their gradients are due.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

MOST = 2**24  # logits at a time: 67 MB, of which cross-entropy and its gradient need four times as much
MOST_FROZEN = 2**22  # behind a frozen head: 17 MB, which is needed twice
IGNORED = -100  # what stands for a target where there is none

Head = Callable[[Tensor], Tensor]  # hidden states (n, d_model) -> logits (n, vocab)


def chunks(positions: int, vocab_size: int, most: int | None = None, count: int = 1) -> list[slice]:
    """Slices over all positions, each with at most `most` logits (`MOST`), or with one position.

    All but the last are of one size, whatever the number of positions, so that batch after batch fits into the same
    memory.

    Args:
        count: how many there are at least; the last ones may be empty.
    """
    size = max(1, (most or MOST) // vocab_size)
    count = max(1, count, math.ceil(positions / size))
    ends = [min(number * size, positions) for number in range(count + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


def cross_entropy(
    head: Head,
    hidden: Float[Tensor, "n d_model"],
    wanted: Int[Tensor, " n"],
    vocab_size: int,
    label_smoothing: float = 0.0,
    agreed: Callable[[int], int] = int,
) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats of the logits that a head makes of hidden states, in float32.

    Args:
        wanted: the targets; IGNORED where there is none.
        agreed: how many parts are taken, given how many are needed here. Ranks whose head is sharded gather it for
            each part, so all of them take as many.
    """

    def loss(part: Tensor, targets: Tensor, reduction: str) -> Tensor:
        logits = head(part).float()
        return F.cross_entropy(
            logits, targets, ignore_index=IGNORED, label_smoothing=label_smoothing, reduction=reduction
        )

    def parts(most: int) -> list[slice]:
        return chunks(len(wanted), vocab_size, most, agreed(len(chunks(len(wanted), vocab_size, most))))

    found = parts(MOST_FROZEN if torch.is_grad_enabled() else MOST)
    learns = torch.is_grad_enabled() and len(found) > 1 and head(hidden[:1].detach()).requires_grad
    found = parts(MOST) if learns else found
    if len(found) == 1:
        return loss(hidden, wanted, "mean")
    if learns:
        losses = [checkpoint(loss, hidden[part], wanted[part], "sum", use_reentrant=False) for part in found]
    elif torch.is_grad_enabled() and hidden.requires_grad:
        summed: Any = _Summed.apply
        losses = [summed(hidden, head, [(part, wanted[part]) for part in found], label_smoothing)]
    else:
        losses = [loss(hidden[part], wanted[part], "sum") for part in found]
    return torch.stack(losses).sum() / (wanted != IGNORED).sum()


class _Summed(torch.autograd.Function):
    """The sum of the losses of all parts behind a frozen head, whose gradients are computed with them.

    The gradient of -sum_v q_v log softmax(z)_v by the logits z is softmax(z) - q, where q is the smoothed target: 1 - s
    at the target, and s / vocab everywhere.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Head, parts: list[tuple[slice, Tensor]], smoothing: float) -> Tensor:
        gradient, total = torch.empty_like(hidden), torch.zeros((), device=hidden.device)
        for part, targets in parts:
            with torch.enable_grad():
                states = hidden[part].detach().requires_grad_()
                logits = head(states)
            log_probs = logits.detach().log_softmax(-1, dtype=torch.float32)
            ignored, share = targets == IGNORED, smoothing / log_probs.shape[1]
            total += (1 - smoothing) * F.nll_loss(log_probs, targets, ignore_index=IGNORED, reduction="sum")
            if smoothing:
                total -= share * log_probs.sum(1)[~ignored].sum()
            slope = log_probs.exp_().sub_(share) if smoothing else log_probs.exp_()
            slope[torch.arange(len(slope), device=slope.device), targets.masked_fill(ignored, 0)] -= 1 - smoothing
            slope[ignored.nonzero().squeeze(1)] = 0  # as a mask, it would pass over all
            (gradient[part],) = torch.autograd.grad(logits, states, slope.to(logits.dtype))
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0], None, None, None
