"""What a process does once, before torch is imported."""

from __future__ import annotations

import importlib
import os
from collections.abc import Container


def ready(loggers: Container[str]) -> None:
    """Import what has to come before torch, then torch, and have the process keep its memory.

    Args:
        loggers: the kinds that the stages will be logged by.
    """
    if "wandb" in loggers:
        # A run of W&B that begins imports this, and looks through all modules there are for each of its classes:
        # after torch and lightning, which bring 3,000, that takes a second more than before them.
        importlib.import_module("wandb.apis.public")
    from lockdec.acceleration import keep_memory

    keep_memory()


def share_cores() -> None:
    """Have threads that wait for each other sleep meanwhile, in this process and those it starts; before torch comes.

    OpenMP lets them spin for milliseconds. Where other processes want the same cores they then wait for threads that
    are kept from running by their own spinning: training on both of two busy cores took six times as long as on one.
    What the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
