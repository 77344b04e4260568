"""Stages that all cells of a sweep need, made before the cells start, with all cores of the machine.

Otherwise one cell would make them with its single thread while the others wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lockdec.config.building import Builder
from lockdec.console import console, printable, track
from lockdec.errors import StoreError
from lockdec.evaluation.result import SCHEMA
from lockdec.pipeline.assembling import Assembly, assemble
from lockdec.pipeline.running import artifacts
from lockdec.runtime.acceleration import release_memory
from lockdec.runtime.interruption import stoppable
from lockdec.store import METADATA, located
from lockdec.store.reading import MADE_BEFORE, read_object
from lockdec.store.writing import write_json
from lockdec.sweeps.finished import finished_cell
from lockdec.tracking.loggers import Tracking


@dataclass(frozen=True)
class Common:
    """The stages that several cells have in common.

    Attributes:
        cells: how many cells.
        config, assembly: of the first of them.
        places: the folder of each shared artifact, made or not, by stage and in the order of the pipeline.
    """

    cells: int
    config: DictConfig
    assembly: Assembly
    places: dict[str, Path]

    @property
    def missing(self) -> list[str]:
        """The stages whose artifacts do not exist yet."""
        return [stage for stage, place in self.places.items() if not (place / METADATA).is_file()]


def make_shared(cells: Iterable[DictConfig], names: Sequence[str], folder: Path, sweep_name: str) -> None:
    """Make, in this process, the stages that all unfinished cells need under the same key.

    An error is printed in one line and left to the cells: each of them meets it again and records it. A signal ends
    the sweep as it ends a cell: a stage that is training saves a checkpoint, and the same command resumes from it.

    Args:
        cells: the config of each cell; may be a generator that composes them.
        names: of the cells' folders.
        folder: of the sweep; `shared/made.json` in it records which stages were made and how long they took.

    Raises:
        InterruptedRunError: the process received a signal.
    """
    with stoppable():
        _make(find_common(cells, names, folder), folder, sweep_name)
    release_memory()


def find_common(cells: Iterable[DictConfig], names: Sequence[str], folder: Path) -> Common | None:
    """The stages that the unfinished cells share; None as soon as none of them has to be made for several cells."""
    builder, common = Builder(), None
    try:
        for config, name in zip(track(cells, "looking up shared stages", len(names)), names, strict=True):
            if finished_cell(config, folder / name):
                continue
            try:
                assembly = assemble(config, builder)
            except Exception:  # the cell meets it again and records it
                continue
            stores = assembly.config.paths.places
            places = {stage: located(stores, stage, key) for stage, key in assembly.keys.items()}
            if common is None:
                common = Common(1, config, assembly, places)
            else:
                both = {stage: place for stage, place in common.places.items() if places.get(stage) == place}
                common = replace(common, cells=common.cells + 1, places=both)
            if not common.missing:
                return None
    except (
        HydraException,
        OmegaConfBaseException,
    ):  # a cell cannot be composed: Hydra is about to say so
        return None
    return common if common and common.cells > 1 else None


def _make(common: Common | None, folder: Path, sweep_name: str) -> None:
    if common is None:
        return
    config, missing = common.assembly.config, common.missing
    console.print(f"  made first, for all {common.cells} cells: {', '.join(missing)}", soft_wrap=True)
    path = folder / MADE_BEFORE
    tracking = Tracking(config.logger, sweep_name, path.parent.name, path.parent, Path(config.paths.outputs))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            made = dict(read_object(path)["stages"])  # by an earlier attempt
        except (StoreError, KeyError, TypeError, ValueError):
            made = {}
        for artifact, seconds in artifacts(common.config, common.assembly, tracking, list(common.places)):
            if not artifact.reused:
                made[artifact.stage] = {"key": artifact.key, "reused": False, "seconds": round(seconds, 3)}
                write_json(path, {"schema": SCHEMA, "stages": made})
    except Exception as error:
        console.print(f"  shared stages not made, so each cell tries again: {printable(str(error))}", soft_wrap=True)
