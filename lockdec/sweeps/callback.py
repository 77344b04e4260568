"""Hydra's callback around a sweep, and what the command asks of it when the sweep has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from lockdec.distributed import ranks
from lockdec.redaction import redacted
from lockdec.runtime.process import ready
from lockdec.sweeps.cells import Sweep, read_cells
from lockdec.sweeps.composing import cell_overrides, compose_cells
from lockdec.sweeps.launchers import cells_at_once, share_cores
from lockdec.sweeps.progress import Progress

_failed: list[str] = []
_progress: Progress | None = None


def failed_cells() -> list[str]:
    """The numbers of the cells that failed in the sweep this process has run; any of them makes its exit status 1."""
    return list(_failed)


def end_progress() -> None:
    """Remove the line of progress, however the sweep ended."""
    global _progress
    if _progress is not None:
        _progress.stop()
        _progress = None


class DryRun(BaseException):
    """Leaves Hydra before anything runs. Not an Exception: Hydra would turn one into a warning and go on.

    Attributes:
        cells: composes the cells and gives each with its folder, which is None for a single run.
        at_once: how many cells run side by side.
        trials: the number of cells of a search, which chooses their values as it goes; None otherwise.
    """

    def __init__(
        self, cells: Callable[[], list[tuple[Path | None, DictConfig]]], at_once: int = 1, trials: int | None = None
    ) -> None:
        self.cells, self.at_once, self.trials = cells, at_once, trials


class SweepWatch(Callback):
    """Shows progress while cells run; at the end, lists the cells that failed and writes the report."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        if config.dry_run:
            raise DryRun(lambda: [(None, config)])

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        global _progress
        if ranks.started().rank > 0:  # only the first rank prints
            return
        loader = GlobalHydra.instance().config_loader()
        folder = Path(config.hydra.sweep.dir)
        trials = config.hydra.sweeper.get("trials")  # of a search
        overrides: list[list[str]] = []
        if trials is not None:
            if config.dry_run:
                raise DryRun(lambda: [(None, config)], cells_at_once(config), trials)
            sweep = Sweep(folder, trials, time.time())
        else:
            overrides = cell_overrides(config, loader)
            if config.dry_run:
                raise DryRun(
                    lambda: [
                        (folder / str(number), cell)
                        for number, cell in enumerate(compose_cells(config, loader, overrides))
                    ],
                    cells_at_once(config),
                )
            sweep = Sweep(folder, len(overrides), time.time(), redacted(overrides))  # as result.json has them
        _progress = Progress(sweep, config.sweep_name)
        _progress.start()
        if share_cores(config) and len(overrides) - sweep.standing().done > 1:
            ready(config.logger.kinds)
            from lockdec.sweeps.shared import make_shared  # here, since it imports torch

            make_shared(compose_cells(config, loader, overrides), len(overrides), folder, config.sweep_name)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        if ranks.started().rank > 0:
            return
        from lockdec.console import console, printable  # here, since --help does not need rich
        from lockdec.report.page import write_report

        total = _progress.sweep.total if _progress else None
        end_progress()
        folder = Path(config.hydra.sweep.dir)
        cells = {name: cell for name, cell in read_cells(folder).items() if total is None or int(name) < total}
        done = [name for name, cell in cells.items() if cell["status"] == "ok"]
        pruned = [name for name, cell in cells.items() if cell["status"] == "pruned"]
        failed = {name: cell for name, cell in cells.items() if cell["status"] not in ("ok", "pruned")}
        _failed.extend(failed)
        counts = f"{len(done)} of {len(cells)} cells done" + (f", {len(pruned)} pruned" if pruned else "")
        console.print(f"\n{counts} in [bold]{printable(str(folder))}[/]", soft_wrap=True)
        for name, cell in failed.items():
            choices = " ".join(cell.get("overrides", []))
            console.print(
                f"  cell {name} failed: {printable(str(cell['error']))} ({printable(choices)})", soft_wrap=True
            )
        if failed:
            console.print("Run the same command again to retry them; finished cells are not repeated.")
        console.print(f"Report: [bold]{printable(str(write_report([folder]).report))}[/]", soft_wrap=True)
