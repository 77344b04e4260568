"""From the command to the first training step: python -m benchmarks start_step."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L

from benchmarks.commands import imports, python
from benchmarks.side_by_side import Subject

TITLE = (
    "A default run in an empty folder up to the end of its first optimizer step (of pretraining): data read, "
    "tokenizer trained, loggers opened; beside importing torch and lightning alone"
)
UNIT = "starts"
GOALS = {"imports": 1 / 1.3}


class EndAfterFirstStep(L.Callback):
    """Ends the process at once when the first step is done."""

    def __init__(self) -> None:  # so that earlier commits can build it
        super().__init__()

    def on_train_batch_end(self, *_: Any) -> None:
        os._exit(0)


def start(*overrides: str) -> Subject:
    """A run that ends after its first step; each starts from scratch."""
    folder = Path(tempfile.mkdtemp())
    ending = f"+callbacks.end._target_={__name__}.{EndAfterFirstStep.__name__}"
    return python("-m", "lockdec.run", ending, *overrides, folder=folder)


def subjects() -> Mapping[str, Callable[[], Subject]]:
    """The command, with and without loggers, and the imports alone."""
    return {
        "lockdec": start,
        "lockdec without loggers": lambda: start("logger=none"),
        "imports": lambda: imports("torch", "lightning"),
    }
