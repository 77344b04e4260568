"""On which device a process works, and that a stage gets the same results there as on the CPU, up to rounding.

A Trainer moves what it trains by itself. What stages compute beside it (encoding, captioning, losses) works on the same
device, in 32 bits that are not shortened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.accelerators.cuda import CUDAAccelerator
from lightning.pytorch.accelerators.mps import MPSAccelerator
from torch import nn

from lockdec.config.schema import TrainerConfig
from lockdec.console import console
from lockdec.distributed import ranks
from lockdec.errors import ConfigError
from lockdec.runtime.acceleration import tf32
from lockdec.runtime.memory import is_out_of_memory

_GPUS = {"mps": MPSAccelerator, "cuda": CUDAAccelerator}  # in the order in which lightning looks for them


def device_of(trainer: TrainerConfig) -> torch.device:
    """The device that lightning's Trainer trains on in this process.

    Raises:
        ConfigError: this machine has no such device, or too few of them.
    """
    wanted = trainer.accelerator
    there = [name for name, gpu in _GPUS.items() if gpu.is_available()] if wanted != "cpu" else []
    fitting = [name for name in [*there, "cpu"] if wanted in ("auto", name) or (wanted == "gpu" and name != "cpu")]
    if not fitting:
        raise ConfigError(f"trainer.accelerator={wanted}: torch {torch.__version__} finds no such device on this "
                          f"machine; use one of: {', '.join([*there, 'cpu', 'auto'])}")  # fmt: skip
    if fitting[0] == "cpu":
        return torch.device("cpu")
    number, count = ranks.local(), _GPUS[fitting[0]].auto_device_count()
    needed = max(number + 1, trainer.devices or 1)
    if needed > count:
        raise ConfigError(f"trainer.devices={needed}: torch finds {count} on this machine ({fitting[0]})")
    return torch.device(fitting[0], number)


def place_on(model: nn.Module, device: torch.device) -> torch.device:
    """Move a model to the device; one whose weights do not fit there stays on the CPU, and a line says so.

    Returns:
        Where it is now.
    """
    try:
        model.to(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        model.to("cpu")
        console.print(f"  {type(model).__name__} does not fit on {device}, so it works on the CPU")
        return torch.device("cpu")
    return device


@contextmanager
def exact() -> Iterator[None]:
    """Make a stage inside this: a GPU takes no TF32, and gives the same numbers each time.

    A Trainer has torch refuse every operation that might not, and leaves it so: what a stage may do would depend on
    whether one was trained before it in this process. Without gradients only convolutions have to be told.
    """
    # What a Trainer sets, too; but it counts at the first product on a GPU, which may come before any training.
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
