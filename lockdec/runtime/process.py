"""What a process does once, before torch is imported."""

from __future__ import annotations

import importlib
import os
from collections.abc import Container, Mapping


def ready(loggers: Container[str]) -> None:
    """Import what has to come before torch, then torch; have threads sleep that wait, keep memory, multiply fast.

    Args:
        loggers: the kinds that the stages will be logged by.
    """
    os.environ.update(waits(os.environ))
    if "wandb" in loggers:
        # A run of W&B that begins imports this, and looks through all modules there are for each of its classes:
        # after torch and lightning, which bring 3,000, that takes a second more than before them.
        importlib.import_module("wandb.apis.public")
    from lockdec.runtime.acceleration import keep_memory, multiply_exactly

    keep_memory()
    multiply_exactly()


def waits(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment so that threads that wait for each other soon sleep; before torch is imported.

    GNU's OpenMP lets them spin for 300,000 turns. Where other processes want the same cores they then wait for threads
    that are kept from running by their own spinning: training on two busy cores could take six times as long as on one.
    Without any spinning, waking them up would cost more than a third of the speed of finetuning on idle cores.

    Args:
        environment: of the process; what the user has set there stays.
    """
    chosen = "OMP_WAIT_POLICY" in environment or "GOMP_SPINCOUNT" in environment
    return {} if chosen else {"GOMP_SPINCOUNT": "10000"}
