"""Muon (Jordan et al. 2024): each step moves a matrix equally far in all directions, however small the gradient."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from lockdec.distributed import ranks

ITERATIONS = 5
# Steep at zero, so that small singular values grow within few iterations.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum: all singular values of a step are about one, whatever the size of the gradient.

    torch has an optimizer of this name, which works in bfloat16, matrix by matrix. The matrices of cross-attention are
    small and have the same shapes in every layer, and few CPUs multiply bfloat16 fast. So matrices of one shape are
    orthogonalised together here, in their own precision; the steps are the same.

    Args:
        params: parameters or groups of them. The last two dimensions of a tensor are a matrix; a vector is a matrix
            of one column.
        lr: the spectral norm of a step, times sqrt(rows / columns) for a matrix with more rows than columns.
        momentum: 0 <= value < 1; Nesterov's.
        weight_decay: a step takes this share, times lr, off the weights.
    """

    def __init__(
        self, params: Iterable[dict[str, Any]] | Iterable[Tensor], lr: float, momentum: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for parameters in alike.values():
                self._move(parameters, group)
        return loss

    def _move(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """A step of parameters of one shape."""
        ahead = torch.stack([self._ahead(parameter, group["momentum"]) for parameter in parameters])
        rows, columns = parameters[0].shape[-2:] if parameters[0].ndim > 1 else (parameters[0].numel(), 1)
        steps = orthogonalised(ahead.reshape(-1, rows, columns)).reshape(ahead.shape)
        for parameter, step in zip(parameters, steps, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(own_part(step, parameter), alpha=-group["lr"])

    def _ahead(self, parameter: Tensor, momentum: float) -> Tensor:
        """Add the gradient to the momentum, and return Nesterov's estimate of the next step."""
        gradient = ranks.whole(cast(Tensor, parameter.grad))
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum"], momentum)


def orthogonalised(matrices: Float[Tensor, "n rows columns"]) -> Float[Tensor, "n rows columns"]:
    """Each matrix with all its singular values brought near one, and near sqrt(rows / columns) where that is more.

    Five iterations of Newton and Schulz, which need products alone, end within about a third of that. Zeros stay.
    """
    a, b, c = COEFFICIENTS
    rows, columns = matrices.shape[1:]
    x = matrices.mT if rows > columns else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=EPS)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if rows > columns else x) * math.sqrt(max(1.0, rows / columns))


def own_part(x: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a tensor that every rank holds whole, sharded as another tensor of its shape."""
    if not isinstance(like, DTensor):
        return x
    return distribute_tensor(x, like.device_mesh, like.placements, src_data_rank=None)
