"""What a stage is: a typed config subtree, a version, and work that fills a folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch.loggers import Logger

from lockdec.store import Artifact


@dataclass(frozen=True)
class Work:
    """What the pipeline hands a stage that has to be made.

    Attributes:
        stage: its name in the config.
        folder: where the stage writes its files; becomes the artifact. What a killed attempt left is still there.
        parents: the artifacts of the stages it names as parents.
        loggers: for curves, tables and pictures; the metrics it returns are logged by the pipeline.
        device: where it computes what no Trainer does; what it stores does not depend on it, up to rounding.
    """

    stage: str
    folder: Path
    parents: Mapping[str, Artifact]
    loggers: list[Logger]
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class Stage(ABC):
    """One step of the pipeline. Its fields are the config subtree `stages.<name>`, and all it may see.

    Attributes:
        version: raised when the same config gives another result than before.
        exports: files of its artifact that a run's folder gets a copy of.
        together: whether all ranks of a job train it, and not the first alone; see `lockdec.distributed.ranks`.
        parents: the stages whose artifacts it reads.
    """

    version: ClassVar[int]
    exports: ClassVar[tuple[str, ...]] = ()
    together: ClassVar[bool] = False
    parents: list[str]

    def check(self) -> None:
        """Raise ConfigError where the config cannot work; called for every stage before any work."""
        return

    def fingerprints(self) -> dict[str, str]:
        """What the result depends on and the config only names: the content of data and weights, as hashes."""
        return {}

    @abstractmethod
    def make(self, work: Work) -> dict[str, Any]:
        """Do the work: write files into `work.folder`, return the metrics, as sections of result.json."""
