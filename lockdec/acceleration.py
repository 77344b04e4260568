"""What makes training faster on a GPU beside its precision: TF32 for what stays in 32 bits, and compiled layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lockdec.config import TrainerConfig
from lockdec.transformer.layers import Stack


@contextmanager
def accelerated(module: nn.Module, trainer: TrainerConfig, backend: str = "inductor") -> Iterator[None]:
    """Train inside this as fast as the trainer's config allows.

    Where it asks for 16 bits, the products that are left in 32 may take TF32, which is more exact than 16 bits are.
    Stacks of layers are compiled where they stand, so that no name in a state dict changes.

    Args:
        module: holds the stacks.
        backend: of torch.compile.
    """
    before = torch.get_float32_matmul_precision()
    if "16" in trainer.precision:
        torch.set_float32_matmul_precision("high")
    if trainer.compile:
        for stack in module.modules():
            if isinstance(stack, Stack):
                stack.compile(dynamic=True, backend=backend)  # batches differ in length
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
