"""Hydra's callback around a sweep, and what the command asks of it when the sweep has ended."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import compress, takewhile
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from lockdec.config.checking import MOST_SEED, check_places, checked
from lockdec.distributed import ranks
from lockdec.errors import ConfigError
from lockdec.evaluation.result import MEASURED
from lockdec.runtime.process import ready
from lockdec.store.reading import RESULT
from lockdec.sweeps.cells import Sweep, finished_by_others, read_cells
from lockdec.sweeps.composing import cell_overrides, compose_cells
from lockdec.sweeps.finished import finished_cell, surely_finished
from lockdec.sweeps.folders import BY_NUMBER, cell_names, claim_run_folder, make_folder
from lockdec.sweeps.launchers import (
    cells_at_once,
    guard_pickles,
    remove_own_pickle,
    remove_pickles,
    require_launcher,
    require_whole,
    shares_cores,
)
from lockdec.sweeps.progress import Progress

_failed: list[str] = []
_finished_first = 0
_progress: Progress | None = None


def failed_cells() -> list[str]:
    """The numbers of the cells that failed in the sweep this process has run; any of them makes its exit status 1."""
    return list(_failed)


def finished_first() -> int:
    """How many cells, from the first on, were finished before this attempt: nothing is launched for them."""
    return _finished_first


def end_progress() -> None:
    """Remove the line of progress, however the sweep ended."""
    global _progress
    if _progress is not None:
        _progress.stop()
        _progress = None


class DryRun(BaseException):
    """Leaves Hydra before anything runs. Not an Exception: Hydra would turn one into a warning and continue.

    Attributes:
        cells: composes the cells and gives each with its folder, which is None for a single run.
        total: how many cells there are.
        at_once: how many cells run side by side.
        trials: the number of cells of a search, which chooses their values as it goes; None otherwise.
    """

    def __init__(
        self,
        cells: Callable[[], Iterable[tuple[Path | None, DictConfig]]],
        total: int = 1,
        at_once: int = 1,
        trials: int | None = None,
    ) -> None:
        self.cells, self.total, self.at_once, self.trials = cells, total, at_once, trials


class Refused(BaseException):
    """Leaves Hydra before anything runs, because of an error in the config; no Exception, as `DryRun`.

    Attributes:
        error: what is wrong.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def refusing() -> Iterator[None]:
    """Raise Refused for any error within this block, which Hydra would make a warning of."""
    try:
        yield
    except Exception as error:
        raise Refused(error) from error


class SweepWatch(Callback):
    """Refuses what cannot run; shows progress while cells run; at the end, lists those that failed and reports."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        with refusing():
            _require_folder_of_start(config)
            checked(_without_hydra(config))
            _require_objective(config, searching=False)
            if config.dry_run:
                raise DryRun(lambda: [(None, config)])
            claim_run_folder(config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        if ranks.started().rank == 0:  # only the first rank prints
            with refusing():
                _start(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:  # launchers pickle what is returned; nobody reads these
            job_return.cfg = job_return.hydra_cfg = job_return.overrides = None
            remove_own_pickle(config)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        if ranks.started().rank > 0 or _progress is None:
            return
        remove_pickles(config)
        from lockdec.console import console, printable  # here, since --help does not need rich
        from lockdec.report.page import write_report

        names = _progress.sweep.names
        end_progress()
        folder = Path(config.hydra.sweep.dir)
        cells = read_cells(folder, names)
        done = [name for name, cell in cells.items() if cell["status"] == "ok"]
        pruned = [name for name, cell in cells.items() if cell["status"] == "pruned"]
        failed = {name: cell for name, cell in cells.items() if cell["status"] not in ("ok", "pruned")}
        _failed.extend(failed)
        report = write_report([folder]).report  # before anything is printed
        counts = f"{len(done)} of {len(cells)} cells done" + (f", {len(pruned)} pruned" if pruned else "")
        console.print(f"\n{counts} in [bold]{printable(str(folder))}[/]", soft_wrap=True)
        for name, cell in failed.items():
            choices = " ".join(cell.get("overrides", []))
            console.print(
                f"  cell {printable(name)} failed: {printable(str(cell['error']))} ({printable(choices)})",
                soft_wrap=True,
            )
        if failed:
            console.print("Run the same command again to retry them; finished cells are not repeated.")
        console.print(f"Report: [bold]{printable(str(report))}[/]", soft_wrap=True)


def _say_whose(others: int, replaced: int, folder: Path) -> None:
    """Say that a sweep's folder holds finished cells that this command does not have, if there are any."""
    if others:
        from lockdec.console import console, printable  # here, since --help does not need rich

        cells = "1 finished cell" if others == 1 else f"{others} finished cells"
        what = f"its own will overwrite {replaced} of them" if replaced else "the report will show them, too"
        console.print(
            f"{printable(str(folder))} holds {cells} that this command does not have; {what}; "
            "another sweep_name keeps them apart",
            soft_wrap=True,
        )


def _start(config: DictConfig) -> None:
    """Refuse what cannot run, or leave for a dry run; make ready what the cells of a sweep need."""
    global _progress, _finished_first
    _require_folder_of_start(config)
    check_places(config)
    require_launcher(config)
    loader = GlobalHydra.instance().config_loader()
    trials = config.hydra.sweeper.get("trials")  # of a search
    overrides = [] if trials is not None else cell_overrides(config, loader)
    if trials is not None:
        _require_search(config)
        names = [str(number) for number in range(trials)]
    else:
        names = cell_names(config, loader, overrides)
    _require_objective(config, searching=trials is not None)
    folder = Path(config.hydra.sweep.dir)
    at_once = cells_at_once(config, len(names) if trials is None else min(trials, config.hydra.sweeper.jobs))
    if config.dry_run:
        if trials is not None:
            raise DryRun(lambda: [(None, config)], at_once=at_once, trials=trials)
        folders = [folder / name for name in names]
        composed = compose_cells(config, loader, overrides)
        raise DryRun(lambda: zip(folders, composed, strict=True), len(folders), at_once)
    make_folder(folder)
    finished = None if trials is not None else _finished(config, loader, overrides, folder, names)
    if finished is not None:
        _say_whose(*finished_by_others(folder, names, overrides, finished), folder)
    sweep = Sweep(folder, names, finished)
    alone = ranks.started().world == 1  # several ranks run the same cells in the same order
    _finished_first = len(list(takewhile((finished or ()).__contains__, names))) if alone else 0
    guard_pickles(config)
    if config.hydra.sweeper._target_.endswith(".BasicSweeper"):  # Hydra makes the sweeper after this
        with read_write(config):
            config.hydra.sweeper._target_ = "hydra_plugins.lockdec_sweep.CellSweeper"
    _progress = Progress(sweep, config.sweep_name)
    _progress.start()
    if shares_cores(config) and at_once > 1 and len(overrides) - sweep.standing().done > 1:
        ready(config.logger.kinds)
        from lockdec.sweeps.shared import make_shared  # here, since it imports torch

        make_shared(compose_cells(config, loader, overrides), names, folder, config.sweep_name)


def _without_hydra(config: DictConfig) -> DictConfig:
    """The config as jobs get it."""
    job = config.copy()
    with open_dict(job):
        job.pop("hydra")
    return job


def _require_folder_of_start(config: DictConfig) -> None:
    """Raise ConfigError where jobs would run in another folder, which relative paths do not mean."""
    if config.hydra.job.chdir:
        raise ConfigError("hydra.job.chdir=true: paths are relative to the folder that lockdec is started in; leave it "
                          "out")  # fmt: skip


def _require_search(config: DictConfig) -> None:
    """Raise ConfigError where an option of a search is out of range, or would not name its cells by their numbers."""
    sweeper = config.hydra.sweeper
    for name in ("warmup", "objectives"):
        if not OmegaConf.is_dict(sweeper[name]):
            raise ConfigError(f"hydra.sweeper.{name}={sweeper[name]}: give values to its keys")
    for name, least in {"trials": 1, "jobs": 1, "warmup.trials": 0, "warmup.steps": 0}.items():
        require_whole(f"hydra.sweeper.{name}", OmegaConf.select(sweeper, name), least)
    require_whole("hydra.sweeper.seed", sweeper.seed, 0, MOST_SEED - sweeper.trials)  # each attempt moves it
    if not isinstance(sweeper["keep"], int | float) or not 0 <= sweeper["keep"] <= 100:
        raise ConfigError(f"hydra.sweeper.keep={sweeper['keep']} must be a number from 0 to 100")
    ways = {f"hydra.sweeper.objectives.{name}": way for name, way in sweeper.objectives.items()}
    if not ways:
        raise ConfigError("hydra.sweeper.objectives={}: name a number of result.json to maximize or minimize")
    for key, way in ways.items():
        if way not in ("maximize", "minimize"):
            raise ConfigError(f"{key}={way} is not one of: maximize, minimize")
    swept = {str(name): value for name, value in (sweeper.params or {}).items()}
    swept |= dict(word.lstrip("+").partition("=")[::2] for word in config.hydra.overrides.task)
    for key in (f"{name}.split" for name in config.pipeline.order):
        values = re.findall(r"\w+", f"{OmegaConf.select(config, key)} {swept.get(key)}")
        if "test" in values:
            raise ConfigError(f"{key}=test: a search chooses by what it measures, and the test split is to "
                              f"judge what was chosen; use {key}=val")  # fmt: skip
    raw = OmegaConf.to_container(config.hydra.sweep, resolve=False)["subdir"]  # type: ignore[call-overload, index]
    if raw != BY_NUMBER:
        raise ConfigError(f"hydra.sweep.subdir={raw}: the cells of a search are named by their number; leave it out")


def _require_objective(config: DictConfig, searching: bool) -> None:
    """Raise ConfigError where the objective of a sweep, or one of a search, is a metric that no run has."""
    wanted = {"objective": str(config.objective)}
    if searching:
        dotted = [str(name) for name in config.hydra.sweeper.objectives]
        wanted = {f"hydra.sweeper.objectives.{name}": name[8:] for name in dotted if name.startswith("metrics.")}
    for key, name in wanted.items():
        if name not in MEASURED:
            raise ConfigError(f"{key}={name} is not one of: {', '.join(MEASURED)}")


def _finished(
    config: DictConfig, loader: ConfigLoader, overrides: Sequence[Sequence[str]], folder: Path, names: Sequence[str]
) -> frozenset[str]:
    """The cells that an earlier attempt has finished, whatever it was told about threads, loggers and the like."""
    ended = [(folder / name / RESULT).is_file() for name in names]
    cells = zip(compress(names, ended), compose_cells(config, loader, list(compress(overrides, ended))), strict=True)
    finished = set()
    for name, cell in cells:
        sure = surely_finished(cell, folder / name)
        if not sure:
            ready(config.logger.kinds)  # the closer look imports torch
        if sure or finished_cell(cell, folder / name):
            finished.add(name)
    return frozenset(finished)
