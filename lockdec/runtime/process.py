"""Prepares a process, once, before torch is imported."""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import threading
import time
from collections.abc import Container, Mapping

WATCH_EVERY = 0.5  # seconds between two looks at the parent
PATIENCE = 10.0  # seconds to save a checkpoint


def ready(loggers: Container[str]) -> None:
    """Set up threads, imports, memory and matrix products; call it before torch is imported.

    Args:
        loggers: the kinds of loggers that the run will use.
    """
    if not faulthandler.is_enabled():
        faulthandler.enable()  # a file that is truncated while it is mapped ends the process: say so, and where
    os.environ.update(waits(os.environ))
    if "wandb" in loggers:
        # A W&B run imports this when it starts, and scans all loaded modules for each of its classes. Torch and
        # Lightning load 3,000 modules, so importing it after them takes a second longer than before.
        importlib.import_module("wandb.apis.public")
    from lockdec.runtime.acceleration import keep_memory, multiply_exactly

    keep_memory()
    multiply_exactly()


def end_with_parent() -> None:
    """End this process when the process that started it has ended: as by SIGTERM, and by SIGKILL if that takes long.

    Otherwise the workers of a sweep that was killed would go on, and nobody would know of them. Linux can send a signal
    itself (PR_SET_PDEATHSIG), but does so when the *thread* ends that started the process.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_EVERY)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        os.kill(os.getpid(), signal.SIGKILL)

    if not any(thread.name == end_with_parent.__name__ for thread in threading.enumerate()):
        threading.Thread(target=watch, name=end_with_parent.__name__, daemon=True).start()


def waits(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables to add to the environment, before torch is imported, so that waiting threads sleep early.

    GNU's OpenMP lets waiting threads spin for 300,000 iterations. If other processes need the same cores, spinning
    threads keep the threads that they wait for from running: training on two busy cores could take six times as long as
    on one. Without any spinning, waking threads would cost more than a third of the speed of finetuning on idle cores.

    Args:
        environment: of the process; settings of the user are respected.
    """
    chosen = "OMP_WAIT_POLICY" in environment or "GOMP_SPINCOUNT" in environment
    return {} if chosen else {"GOMP_SPINCOUNT": "10000"}
