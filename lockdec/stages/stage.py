"""What a stage is: a step of the pipeline that declares, in its own file, everything that lockdec knows about it.

A file of a stage imports Lightning, and what imports it, where it trains: that takes seconds, and a dry run or a sweep
that is finished reads only what stages declare.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from lockdec.config.schema import Section
from lockdec.store import Artifact
from lockdec.transformer.locking import LockingModel

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


class Laps:
    """How long the parts of a stage's work take, one after the other.

    Attributes:
        seconds: of each part.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def end(self, part: str) -> None:
        """Count the time since the last part ended as time of this one; there may be several of a name."""
        now = time.monotonic()
        self.seconds[part] = round(self.seconds.get(part, 0.0) + now - self._since, 3)
        self._since = now


@dataclass(frozen=True)
class Work:
    """What the pipeline hands a stage that has to be made.

    Attributes:
        stage: its name in the config.
        folder: where the stage writes its files; becomes the artifact. The files of a killed attempt are still there.
        parents: the artifacts of the stages it reads, by name.
        loggers: for curves, tables and pictures; the metrics it returns are logged by the pipeline.
        device: where it computes what no Trainer does; what it stores does not depend on it, up to rounding.
    """

    stage: str
    folder: Path
    parents: Mapping[str, Artifact]
    loggers: list[Logger]
    device: torch.device

    def parent(self, stage: type[Stage]) -> Artifact:
        """The artifact of a stage that is among the parents."""
        return self.parents[stage.name]

    @property
    def decoder(self) -> list[Artifact]:
        """The artifacts that the decoder is loaded from: of the stage that made it, then of those that changed it."""
        return [self.parents[name] for name in self.parents if name in DecoderStage.names()]


@dataclass(frozen=True, kw_only=True)
class Stage(ABC):
    """One step of the pipeline. Its fields are the config subtree `stages.<name>`, and all it may see.

    A new stage is a subclass in a file of its own and a `conf/stage/<name>.yaml` with its section and its subtree.

    Attributes:
        name: of its subtree, its section and its artifacts. Stages that make the same files may share one: a decoder
            that is imported takes the place of one that is pretrained.
        version: raised whenever the same config gives another result than before; a test fails if that is forgotten.
        reads: the kinds of stages whose artifacts it reads, in the order in which its key names them. Of each kind it
            reads every stage that comes before it in the pipeline.
        neutral: the keys of its subtree that cannot change its result, and so are no part of its artifact key:
            `name`, `name.name`, or `name=value` or `name is null` where only that value cannot; `*` stands for any
            part.
        fingerprinted: likewise, the keys for which the fingerprints stand in its artifact key. Two values of them may
            give one result, as two paths of the same files do, or two.
        section: types the section of the config that has the stage's name; None where there is none.
        code: the modules, beside its own, whose code decides its result.
        exports: files of its artifact that a run's folder gets a copy of.
        together: whether all ranks of a job train it, and not the first alone; see `lockdec.distributed.ranks`.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    reads: ClassVar[tuple[type[Stage], ...]] = ()
    neutral: ClassVar[tuple[str, ...]] = (
        "data.cache",
        "data.case=lower",  # what data are without it
        "*.rope_share=1.0",  # what a transformer is without them
        "*.rope_thetas=None",
        "*.head_size=None",
        "*.qk_norm=False",
        "*.scaled_embedding=False",
    )
    fingerprinted: ClassVar[tuple[str, ...]] = ("data.rate",)  # where inputs are sounds; it is null elsewhere
    section: ClassVar[type[Section] | None] = None
    code: ClassVar[tuple[str, ...]] = ()
    exports: ClassVar[tuple[str, ...]] = ()
    together: ClassVar[bool] = False

    @classmethod
    def names(cls) -> set[str]:
        """The names of this stage and of all that extend it."""
        return {getattr(cls, "name", "")}.union(*(kind.names() for kind in cls.__subclasses__()))

    def parents(self, before: Mapping[str, Stage]) -> tuple[str, ...]:
        """The names of the stages whose artifacts it reads.

        Args:
            before: the stages that come before it in the pipeline.
        """
        found: list[str] = []
        for kind in self.reads:
            found += [name for name, stage in before.items() if isinstance(stage, kind)] or [kind.name]
        return tuple(found)

    def check(self) -> None:
        """Raise ConfigError where the config cannot work; called for every stage before any work."""
        return

    def check_after(self, before: Mapping[str, Stage]) -> None:
        """Raise ConfigError where it cannot follow the stages before it; called when `check` is."""
        return

    def rehearse(self, device: torch.device, before: Mapping[str, Stage], keys: Mapping[str, str]) -> None:
        """Raise what the work would raise, as far as a small part of it shows; called before any stage works.

        It is not called where the artifact is there already.

        Args:
            device: where it will compute what no Trainer does.
            before: all stages of the pipeline that come before it.
            keys: of the artifacts of all stages of the pipeline, made or not.
        """
        return

    def check_decoder(self, decoder: Sequence[Artifact], before: Mapping[str, Stage]) -> None:
        """Raise ConfigError where the decoder cannot do what this stage asks; called as soon as it is there.

        It is not called where the artifact of this stage is there already.

        Args:
            decoder: as `Work.decoder`.
            before: as in `rehearse`.
        """
        return

    def fingerprints(self) -> dict[str, str]:
        """Hashes of what the config only names and the result depends on: the content of data and weights."""
        return {}

    @abstractmethod
    def make(self, work: Work) -> dict[str, Any]:
        """Do the work: write files into `work.folder`, return the metrics, as sections of result.json."""


@dataclass(frozen=True, kw_only=True)
class DecoderStage(Stage):
    """A stage that gives the stages after it their decoder; see `lockdec.evaluation.stored` for its files.

    The first one of a pipeline makes the decoder. Later ones change some of its weights, and store only those.
    """

    name: ClassVar[str] = "pretrain"

    @property
    def sizes(self) -> dict[str, int]:
        """`max_len` and `layers` of the decoder that this stage makes, as far as they are known before it works."""
        return {}

    def undrawn(self) -> LockingModel | None:
        """The decoder that this stage makes, without values; None where its config is not known before it works."""
        return None
