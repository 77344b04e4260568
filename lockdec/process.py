"""What a process does once, before it imports torch to work on stages."""

from __future__ import annotations

import importlib
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
