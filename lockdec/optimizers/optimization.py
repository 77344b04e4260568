"""The optimizer and the learning-rate schedule, with the part of a config that describes them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import MISSING
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from lockdec.errors import ConfigError

OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("cosine", "constant", "inverse_square_root")


@dataclass
class OptimizerConfig:
    """AdamW (without weight decay it is Adam) with a linear warm-up.

    Attributes:
        learning_rate: at the end of the warm-up, where it is highest.
        schedule: after the warm-up, `cosine` (down to a tenth), `constant`, or `inverse_square_root` of the step, which
            with `noam_peak` as learning rate is the schedule of Vaswani et al. 2017, 5.3.
        clip_norm: the gradient's largest norm; 0 does not clip.
        eps: what Adam adds to the root of the second moment.
    """

    learning_rate: float = MISSING
    weight_decay: float = MISSING
    betas: list[float] = MISSING
    warmup_steps: int = MISSING
    schedule: str = MISSING
    clip_norm: float = MISSING
    eps: float = 1e-8

    def check(self, key: str) -> None:
        """Raise ConfigError, naming the key below `key`, where a value is out of range."""
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"{key}.schedule={self.schedule} is not one of: {', '.join(SCHEDULES)}")
        for name in ("learning_rate", "eps"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{key}.{name}={getattr(self, name)} must be above 0")
        if self.schedule == "inverse_square_root" and self.warmup_steps < 1:
            raise ConfigError(f"{key}.warmup_steps={self.warmup_steps}: inverse_square_root needs at least 1")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"{key}.betas={list(self.betas)} must be two numbers of 0 <= beta < 1")
        for name in ("weight_decay", "warmup_steps", "clip_norm"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{key}.{name}={getattr(self, name)} must not be negative")


@dataclass
class FinetuneOptimizerConfig(OptimizerConfig):
    """The same for cross-attention, which Muon can train instead of AdamW, in fewer steps at a higher learning rate.

    Attributes:
        kind: adamw, or muon (`lockdec.optimizers.muon`), whose momentum is the first of the betas; it has no second.
    """

    kind: str = MISSING

    def check(self, key: str) -> None:
        super().check(key)
        if self.kind not in OPTIMIZERS:
            raise ConfigError(f"{key}.kind={self.kind} is not one of: {', '.join(OPTIMIZERS)}")


def configure(
    parameters: Iterable[nn.Parameter], config: OptimizerConfig, steps: int, fused: bool = True
) -> dict[str, Any]:
    """What `configure_optimizers` returns: AdamW or Muon over the trainable parameters, its schedule advanced by step.

    Weight decay is for matrices; gates, biases and norms go without, as in GPT-2's training.

    Args:
        steps: of the whole training, for the schedule's end.
        fused: whether AdamW is one kernel. With 16-bit mixed precision, that kernel would also undo the scaling of the
            gradients, so Lightning refuses to clip them.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizer: torch.optim.Optimizer
    if isinstance(config, FinetuneOptimizerConfig) and config.kind == "muon":
        from lockdec.optimizers.muon import Muon  # here, since it imports torch's distributed tensors

        optimizer = Muon(groups, lr=config.learning_rate, momentum=config.betas[0])
    else:
        betas = (config.betas[0], config.betas[1])
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.eps, fused=fused)
    schedule = LambdaLR(optimizer, lambda step: rate_factor(step, config, steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rate_factor(step: int, config: OptimizerConfig, steps: int) -> float:
    """The share of the learning rate at a step: up linearly over the warm-up, then by `config.schedule`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "inverse_square_root":
        return math.sqrt(config.warmup_steps / (step + 1))
    progress = min(1.0, (step - config.warmup_steps) / max(1, steps - config.warmup_steps))
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))
