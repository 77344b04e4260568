"""The optimizer and the learning-rate schedule that a config describes, and which of their steps are logged."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from lockdec.modules.configuration import OptimizerConfig
from lockdec.optimizers.muon import Muon


def configure(
    parameters: Iterable[nn.Parameter], config: OptimizerConfig, steps: int, muon: bool = False
) -> dict[str, Any]:
    """What `configure_optimizers` returns: AdamW or Muon over the trainable parameters, with its schedule a step.

    Weight decay is for matrices; gates, biases and norms go without, as in GPT-2's training.

    Args:
        steps: of the whole training, for the schedule's end.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizer: torch.optim.Optimizer
    if muon:
        optimizer = Muon(groups, lr=config.learning_rate, momentum=config.betas[0])
    else:
        betas = (config.betas[0], config.betas[1])
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.eps, fused=True)
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
