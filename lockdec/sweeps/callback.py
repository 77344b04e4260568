"""What a sweep says while it runs and at its end, and what a dry run says instead, as a callback of Hydra."""

from __future__ import annotations

import os
import threading
import time
import typing
from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from operator import not_
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from lockdec.distributed import ranks
from lockdec.redaction import redacted
from lockdec.runtime.process import ready
from lockdec.sweeps.cells import Sweep, read_cells

if TYPE_CHECKING:
    from rich.text import Text

LOOK_EVERY = 1.0  # seconds between two looks at the folder
PLAIN_EVERY = 10.0  # seconds that have to pass between two lines in a log file

_failed: list[str] = []
_watch: Watch | None = None


def failed_cells() -> list[str]:
    """The folders of the cells that failed in the sweep this process has run; they decide its exit status."""
    return list(_failed)


def end_watch() -> None:
    """Take the line of progress away, however the sweep ended."""
    global _watch
    if _watch is not None:
        _watch.stop()
        _watch = None


class DryRun(BaseException):
    """Leaves Hydra before anything has run. No Exception, since Hydra would turn one into a warning and go on.

    Attributes:
        cells: composes each cell and gives it with its folder, which is None for a single run.
        at_once: how many cells run side by side.
        trials: of a search, whose cells are not known before; None otherwise.
    """

    def __init__(
        self, cells: Callable[[], list[tuple[Path | None, DictConfig]]], at_once: int = 1, trials: int | None = None
    ) -> None:
        self.cells, self.at_once, self.trials = cells, at_once, trials


class SweepWatch(Callback):
    """Hydra's callback around a sweep: one line of progress while cells run; then what failed, and the report."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        if config.dry_run:
            raise DryRun(lambda: [(None, config)])

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        global _watch
        if ranks.started().rank > 0:  # the first rank says it all
            return
        loader = GlobalHydra.instance().config_loader()
        folder = Path(config.hydra.sweep.dir)
        trials = config.hydra.sweeper.get("trials")  # of a search, which chooses its cells
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
                        for number, cell in enumerate(composed_cells(config, loader, overrides))
                    ],
                    cells_at_once(config),
                )
            sweep = Sweep(folder, len(overrides), time.time(), redacted(overrides))  # as result.json has them
        _watch = Watch(sweep, config.sweep_name)
        _watch.start()
        if beside_each_other_here(config) and len(overrides) - sweep.standing().done > 1:
            ready(config.logger.kinds)
            from lockdec.sweeps.shared import make_shared  # here, since it imports torch

            make_shared(composed_cells(config, loader, overrides), len(overrides), folder, config.sweep_name)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        if ranks.started().rank > 0:
            return
        from lockdec.console import console, printable  # here, since --help has no use for rich
        from lockdec.report.page import write_report

        total = _watch.sweep.total if _watch else None
        end_watch()
        folder = Path(config.hydra.sweep.dir)
        cells = {name: cell for name, cell in read_cells(folder).items() if total is None or int(name) < total}
        done = [name for name, cell in cells.items() if cell["status"] == "ok"]
        pruned = [name for name, cell in cells.items() if cell["status"] == "pruned"]
        failed = {name: cell for name, cell in cells.items() if cell["status"] not in ("ok", "pruned")}
        _failed.extend(failed)
        counts = f"{len(done)} of {len(cells)} cells done" + (f", {len(pruned)} pruned" if pruned else "")
        console.print(f"\n{counts} in [bold]{printable(str(folder))}[/]", soft_wrap=True)
        for name, cell in failed.items():
            what = " ".join(cell.get("overrides", []))
            console.print(f"  cell {name} failed: {printable(str(cell['error']))} ({printable(what)})", soft_wrap=True)
        if failed:
            console.print("Run the same command again to retry them; finished cells are not repeated.")
        console.print(f"Report: [bold]{printable(str(write_report([folder]).report))}[/]", soft_wrap=True)


def cell_overrides(config: DictConfig, loader: ConfigLoader) -> list[list[str]]:
    """What Hydra's own sweeper will override in each cell, in the order of their numbers."""
    swept = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    parser = OverridesParser.create(config_loader=loader)
    overrides = parser.parse_overrides(swept + typed_overrides(config.hydra))
    return BasicSweeper.split_arguments(overrides, None)[0]


def composed_cells(
    config: DictConfig, loader: ConfigLoader, overrides: Sequence[Sequence[str]]
) -> Iterator[DictConfig]:
    """What Hydra composes for each cell, without its own node; cells that differ in values alone share the work.

    Args:
        config: of the sweep.
        overrides: of each cell.
    """
    parser = OverridesParser.create(config_loader=loader)
    shared: dict[tuple[str, ...], DictConfig] = {}
    for cell in overrides:
        parsed = parser.parse_overrides(list(cell))
        chooses = [
            bool(loader.get_group_options(one.key_or_group)) and not isinstance(one.value(), dict) for one in parsed
        ]
        chosen = tuple(compress(cell, chooses))
        if chosen not in shared:
            composed = loader.load_sweep_config(config, list(chosen))
            with open_dict(composed):
                composed.pop("hydra")
            shared[chosen] = composed
        composed = shared[chosen].copy()
        ConfigLoaderImpl._apply_overrides_to_config(list(compress(parsed, map(not_, chooses))), composed)
        yield composed


def typed_overrides(hydra: Any) -> list[str]:
    """What was typed, from Hydra's own config; `x=${y}` stays so."""
    return typing.cast(list[str], OmegaConf.to_container(OmegaConf.create(hydra.overrides.task), resolve=False))


def cells_at_once(config: DictConfig) -> int:
    """How many cells the chosen launcher runs side by side; 1 for Hydra's own."""
    launcher, sweeper = config.hydra.launcher, config.hydra.sweeper
    jobs = launcher.get("n_jobs")  # of joblib: -1 is one for each core
    if jobs is None and "submitit" in launcher._target_:
        jobs = sweeper.get("max_batch_size")
    if launcher._target_.endswith(".RayLauncher") and not launcher.address:  # of a cluster nobody knows before
        jobs = int((launcher.num_cpus or os.cpu_count() or 1) // launcher.cpus_per_cell)
    if jobs is not None and jobs < 0:
        jobs = (os.cpu_count() or 1) + 1 + jobs
    return max(1, jobs or 1)


def beside_each_other_here(config: DictConfig) -> bool:
    """Whether the chosen launcher runs several cells at once, in processes of this machine alone, that share its cores.

    Not Ray's, which may hand its cells to other machines.
    """
    alone = ranks.started().world == 1 and config.trainer.strategy == "auto"
    here = config.hydra.launcher._target_.endswith((".JoblibLauncher", ".LocalLauncher"))
    return bool(alone and here and cells_at_once(config) > 1)


class Watch:
    """Shows how far a sweep is: a line that stays in place in a terminal, plain lines in a log file."""

    def __init__(self, sweep: Sweep, name: str) -> None:
        from rich.live import Live

        from lockdec.console import console

        self.sweep, self.name, self._console = sweep, name, console
        self._line, self._looked = "", 0.0
        self._stopped = threading.Event()
        self._live = Live(get_renderable=self._text, console=console, refresh_per_second=1, transient=True)
        self._thread = threading.Thread(target=self._say_plainly, daemon=True)

    def start(self) -> None:
        """Show the line until `stop`."""
        if self._console.is_terminal:
            self._live.start()
        else:
            self._thread.start()

    def stop(self) -> None:
        """Show it no longer."""
        if self._console.is_terminal:
            self._live.stop()
        else:
            self._stopped.set()
            self._thread.join()

    def _text(self) -> Text:
        from rich.text import Text

        if time.monotonic() - self._looked > LOOK_EVERY:  # bars of a running cell refresh the whole display often
            self._line, self._looked = self.sweep.standing().line(self.name), time.monotonic()
        return Text(self._line, style="bold", overflow="ellipsis", no_wrap=True)

    def _say_plainly(self) -> None:
        from lockdec.console import printable

        said_at, said = 0.0, (-1, -1)
        while not self._stopped.is_set():
            standing = self.sweep.standing()
            ended = (standing.done, standing.failed + standing.pruned)
            if ended != said and (said_at == 0 or time.monotonic() - said_at >= PLAIN_EVERY):
                self._console.print(printable(standing.line(self.name)), soft_wrap=True)
                said_at, said = time.monotonic(), ended
            self._stopped.wait(LOOK_EVERY)
