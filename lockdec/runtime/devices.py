"""Selects the device of a process, and makes a stage give the same results there as on the CPU, up to rounding.

A Trainer places what it trains by itself. All other computations of a stage (encoding, captioning, losses) run on the
same device, in full 32-bit precision.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import nn

from lockdec.config.schema import TrainerConfig
from lockdec.console import console
from lockdec.distributed import ranks
from lockdec.errors import ConfigError
from lockdec.runtime.acceleration import tf32
from lockdec.runtime.memory import is_out_of_memory

if TYPE_CHECKING:
    from lightning.pytorch.accelerators.cuda import CUDAAccelerator
    from lightning.pytorch.accelerators.mps import MPSAccelerator


def device_of(trainer: TrainerConfig) -> torch.device:
    """The device on which Lightning's Trainer trains in this process.

    Raises:
        ConfigError: this machine has no such device, or too few of them.
    """
    wanted = trainer.accelerator
    there = _gpus() if wanted != "cpu" else {}
    fitting = [name for name in [*there, "cpu"] if wanted in ("auto", name) or (wanted == "gpu" and name != "cpu")]
    if not fitting:
        raise ConfigError(f"trainer.accelerator={wanted}: torch {torch.__version__} finds no such device on this "
                          f"machine; use one of: {', '.join([*there, 'cpu', 'auto'])}")  # fmt: skip
    if fitting[0] == "cpu" and trainer.precision == "16-mixed":
        raise ConfigError("trainer.precision=16-mixed needs a GPU, and this machine has none; use bf16-mixed")
    if fitting[0] == "cpu":
        return torch.device("cpu")
    number, count = ranks.local(), there[fitting[0]].auto_device_count()
    needed = max(number + 1, trainer.devices or 1)
    if needed > count:
        raise ConfigError(f"trainer.devices={needed}: torch finds {count} on this machine ({fitting[0]})")
    return torch.device(fitting[0], number)


@cache
def tell_unused(accelerator: str) -> None:
    """Say, once in a process, that there is a GPU where the config asks for the CPU."""
    there = list(_gpus()) if accelerator == "cpu" else []
    if there:
        console.print(f"  This machine has a GPU ({there[-1]}), which trainer=gpu would use")


def _gpus() -> dict[str, type[CUDAAccelerator | MPSAccelerator]]:
    """The kinds of GPUs that this machine has, in the order in which Lightning looks for them."""
    from lightning.pytorch.accelerators.cuda import CUDAAccelerator
    from lightning.pytorch.accelerators.mps import MPSAccelerator

    kinds: dict[str, type[CUDAAccelerator | MPSAccelerator]] = {"mps": MPSAccelerator, "cuda": CUDAAccelerator}
    return {name: kind for name, kind in kinds.items() if kind.is_available()}


def place_on(model: nn.Module, device: torch.device) -> torch.device:
    """Move a model to the device, or to the CPU with a message if its weights do not fit on the device.

    Returns:
        The device that it is on now.
    """
    try:
        model.to(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        model.to("cpu")
        console.print(f"  {type(model).__name__} does not fit on {device}, so it runs on the CPU")
        return torch.device("cpu")
    return device


@contextmanager
def exact() -> Iterator[None]:
    """Compute within this context without TF32 and deterministically.

    A Trainer makes torch refuse nondeterministic operations and does not reset this, so what a stage may do would
    depend on whether an earlier stage of this process was trained. Without gradients, only convolutions need a setting.
    """
    # A Trainer sets this too, but it takes effect at the first product on a GPU, which may precede all training.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    refuses, convolutions = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = True
    try:
        with tf32(False):
            yield
    finally:
        torch.use_deterministic_algorithms(refuses)
        torch.backends.cudnn.deterministic = convolutions
