"""What every rank but the first does: together with the others, it makes the stages that the first rank orders.

The first rank alone does everything else in a run: the store, its locks, the stages of one process, result.json.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch.loggers.logger import DummyLogger, Logger
from omegaconf import DictConfig

from lockdec.config.building import Builder
from lockdec.console import console
from lockdec.distributed import ranks
from lockdec.pipeline.assembling import build_stages, checked_subtrees
from lockdec.runtime.devices import device_of
from lockdec.runtime.interruption import stoppable
from lockdec.stages.stage import Stage, Work
from lockdec.store import open_artifact


def lead(work: Callable[[], float], folder: Path) -> float:
    """Do the work of the first rank, and release the others when it has ended, successfully or not.

    Args:
        folder: of the run.
    """
    ranks.order({"folder": str(folder.resolve())})
    status: Any = 1
    try:
        value = work()
        status = 0
    except BaseException as error:
        status = getattr(error, "status", 1)
        raise
    else:
        return value
    finally:
        ranks.order({"end": status, "objective": None if status or math.isnan(value) else value})


def follow(config: DictConfig, folder: Path) -> float:
    """Follow the first rank until its run has ended.

    Args:
        folder: made by Hydra for this process; its name may hold a later time than the first rank's.

    Returns:
        The first rank's objective; NaN where it has none.

    Raises:
        SystemExit: the first rank has failed, and has said why.
        LostRankError: the first rank is gone.
    """
    console.quiet = True
    if ranks.next_order()["folder"] != str(folder.resolve()):
        with suppress(OSError):
            folder.rmdir()
    stages: dict[str, Stage] = {}
    with stoppable():
        while True:
            order = ranks.next_order()
            if "end" in order:
                break
            if not stages:
                builder = Builder()
                typed, subtrees = checked_subtrees(config, builder)
                if typed.trainer.threads:
                    torch.set_num_threads(typed.trainer.threads)
                stages = build_stages(subtrees, builder)
                device = device_of(typed.trainer)
            _make(order, stages[order["make"]], device)
    if order["end"]:
        sys.exit(order["end"])
    return math.nan if order["objective"] is None else float(order["objective"])


def _make(order: dict[str, Any], stage: Stage, device: torch.device) -> None:
    parents = {name: open_artifact(Path(folder)) for name, folder in order["parents"].items()}
    # The first rank writes the stage's files; those of this rank are thrown away.
    with TemporaryDirectory(prefix="lockdec-rank-") as scratch:
        loggers: list[Logger] = [DummyLogger()] if order["logged"] else []
        try:
            with ranks.together():
                stage.make(Work(order["make"], Path(scratch), parents, loggers, device))
        except BaseException as error:
            if not getattr(error, "agreed", False):
                raise
