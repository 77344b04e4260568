"""A dry run: how many cells there are, which stages they would make, and how long that takes. Nothing runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from omegaconf import DictConfig, open_dict

from lockdec.config.building import Builder
from lockdec.console import console, plan_table, printable, track
from lockdec.errors import ConfigError, DataError, StoreError
from lockdec.pipeline.assembling import assemble
from lockdec.store import METADATA, located
from lockdec.store.reading import read_object
from lockdec.sweeps.finished import finished_cell
from lockdec.terminal import duration

NEWEST = 100  # artifacts of a stage, which say how long another one takes


@dataclass(frozen=True)
class StagePlan:
    """One stage over all cells that would run.

    Attributes:
        made: how many artifacts the cells would make.
        reused: how often a cell would find its artifact in the store or made by another cell.
        seconds: the estimated time to make them, from the artifacts in the store with the most similar config; None
            where the store holds none of this stage.
        judged_by: how many artifacts of this stage the store holds.
    """

    made: int
    reused: int
    seconds: float | None
    judged_by: int


@dataclass(frozen=True)
class Plan:
    """What a run or sweep would do.

    Attributes:
        cells, finished: how many cells there are, and how many of them are finished already.
        stages: in the order of the pipeline.
        refused: the cells that cannot run, by number, each with the reason.
        at_once: how many cells the launcher runs side by side.
    """

    cells: int
    finished: int
    stages: Mapping[str, StagePlan]
    refused: Mapping[str, str]
    at_once: int

    @property
    def seconds(self) -> float:
        """The estimated time of all stages with an estimate, divided by the number of cells that run side by side."""
        return sum(stage.seconds or 0.0 for stage in self.stages.values()) / self.at_once

    @property
    def unknown(self) -> list[str]:
        """The stages to be made for which there is no estimate."""
        return [name for name, stage in self.stages.items() if stage.made and stage.seconds is None]


def plan(cells: Iterable[tuple[Path | None, DictConfig]], at_once: int = 1, total: int | None = None) -> Plan:
    """Compute the key of every stage and look it up in the store. Writes nothing.

    Args:
        cells: each cell's folder (None outside a sweep) and config; one at a time is kept.
        at_once: how many of them run side by side.
        total: how many cells there are, where `cells` has no length.
    """
    builder, count, finished = Builder(), 0, 0
    uses: dict[str, dict[str, tuple[Path, Mapping[str, Any]]]] = {}
    stores: dict[Path, None] = {}
    times: dict[str, int] = {}
    refused: dict[str, str] = {}
    for count, (folder, composed) in enumerate(track(cells, "looking up the stages of each cell", total), start=1):
        config = composed
        if "hydra" in composed:  # a job gets its config without it
            config = composed.copy()
            with open_dict(config):
                config.pop("hydra")
        if folder is not None and finished_cell(config, folder):
            finished += 1
            continue
        try:
            assembly = assemble(config, builder)
        except (ConfigError, DataError) as error:
            refused[str(count - 1)] = str(error)
            continue
        stores |= dict.fromkeys(assembly.config.paths.places)
        for name, key in assembly.keys.items():
            folder = located(assembly.config.paths.places, name, key)
            uses.setdefault(name, {})[key] = (folder, assembly.subtrees[name])
            times[name] = times.get(name, 0) + 1
    stages = {name: _stage_plan([store / name for store in stores], uses[name], times[name]) for name in uses}
    return Plan(count, finished, stages, refused, at_once)


def _stage_plan(roots: Sequence[Path], found: Mapping[str, tuple[Path, Mapping[str, Any]]], times: int) -> StagePlan:
    missing = [subtree for folder, subtree in found.values() if not (folder / METADATA).is_file()]
    made_before = [timing for root in roots for timing in timings(root)]
    seconds = [likely_seconds(subtree, made_before) for subtree in missing]
    known = sum(value for value in seconds if value is not None)
    return StagePlan(len(missing), times - len(missing), known if made_before else None, len(made_before))


def timings(root: Path) -> Iterator[tuple[frozenset[str], float]]:
    """The config (as a set of `name=value`) and the seconds of the newest artifacts of a stage."""
    for path in sorted(root.glob(f"*/{METADATA}"), key=_made_at, reverse=True)[:NEWEST]:
        try:
            record = read_object(path)
            yield leaves(record["config"]), float(record["seconds"])
        except (StoreError, ValueError, KeyError, TypeError):
            continue  # damaged: the run that needs it will set it aside


def _made_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # removed in the meantime
        return 0.0


def likely_seconds(config: Mapping[str, Any], known: Sequence[tuple[frozenset[str], float]]) -> float | None:
    """The median seconds of the artifacts whose config differs in the fewest values; None where there is none."""
    wanted = leaves(config)
    distances = [len(wanted ^ other) for other, _ in known]
    nearest = min(distances, default=0)
    return median(s for d, (_, s) in zip(distances, known, strict=True) if d == nearest) if known else None


def leaves(node: Any, path: str = "") -> frozenset[str]:
    """Every value of nested containers as `path=value`."""
    if isinstance(node, Mapping):
        return frozenset().union(*(leaves(value, f"{path}.{name}") for name, value in node.items()))
    return frozenset([f"{path}={json.dumps(node, default=str)}"])


def show(what: Plan, trials: int | None = None) -> int:
    """Print the plan.

    Args:
        trials: the number of cells of a search, which chooses their values as it goes; the plan is that of one cell.

    Returns:
        The exit status: 1 where a cell cannot run.
    """
    if trials:
        console.print(
            f"a search of {trials} trial{'s' if trials > 1 else ''}; this is one cell with the values you typed"
        )
    else:
        cells = "1 cell" if what.cells == 1 else f"{what.cells} cells"
        left = what.cells - what.finished - len(what.refused)
        console.print(f"{cells}: {what.finished} finished, {left} to run, {len(what.refused)} cannot run")
    for number, why in what.refused.items():
        console.print(f"  cell {number} cannot run: {printable(why)}", soft_wrap=True)
    if what.stages:
        console.print(plan_table({name: vars(stage) for name, stage in what.stages.items()}))
    side = f" with {what.at_once} cells at a time" if what.at_once > 1 else ""
    if what.unknown:
        console.print(f"time unknown for {', '.join(what.unknown)}: the store holds no such artifact")
    if not what.unknown or what.seconds:
        console.print(f"about {duration(what.seconds)} of work{side}{' for the other stages' if what.unknown else ''}")
    console.print("dry run: nothing was run or written")
    return 1 if what.refused else 0
