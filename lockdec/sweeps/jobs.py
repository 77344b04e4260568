"""The jobs that Hydra starts: a single run, or a cell of a sweep."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from lockdec.config.building import Builder
from lockdec.console import Summary, console, printable, printable_lines
from lockdec.data.captions import CaptionSet, spread
from lockdec.data.text import TextSource
from lockdec.distributed import ranks
from lockdec.encoders.contract import Encoder
from lockdec.errors import ConfigError, DataError, LockdecError, PrunedError, StoreError
from lockdec.pipeline.running import run
from lockdec.redaction import of_error
from lockdec.store.reading import CAPTIONS, read_json_lines
from lockdec.sweeps.cells import claimed
from lockdec.sweeps.finished import finished_cell
from lockdec.sweeps.folders import forget_refused

SHOWN = 12  # captions printed at the end of a run
_KEPT = (CaptionSet, TextSource, Encoder)  # what the cells of a process share; no run changes any of it

_builder = Builder()


def run_job(
    config: DictConfig,
    folder: Path,
    overrides: Sequence[str],
    cell: str | None = None,
    watchers: Sequence[Logger] = (),
) -> float:
    """Run once and print the closing tables and the report; or run one cell of a sweep.

    A finished cell is not run again. A cell that fails is recorded and does not end the sweep.

    Args:
        cell: its name, which is its place in the folder of the sweep; None for a single run.

    Returns:
        The objective; NaN for a failed cell.
    """
    if cell is None:
        try:
            result = run(config, folder, overrides)
        except (ConfigError, DataError):
            forget_refused(folder)
            raise
        from lockdec.report.page import write_report

        report = write_report([folder]).report  # before anything is printed
        Summary(console).result(result, spread(read_captions(folder), SHOWN), folder)
        console.print(f"Report: [bold]{printable(str(report))}[/]", soft_wrap=True)
        return objective(result, config.objective)
    with claimed(folder):
        if finished := finished_cell(config, folder):
            return objective(finished, config.objective)
        try:
            result = run(config, folder, overrides, config.sweep_name, watchers, cell, _next_builder())
            return objective(result, config.objective)
        except PrunedError:
            return math.nan
        except Exception as error:  # result.json records it; the other cells still run
            console.print(f"cell {printable(cell)} failed: {printable(of_error(str(error)))}", soft_wrap=True)
            if not isinstance(error, LockdecError):
                console.print(printable_lines(traceback.format_exc()), soft_wrap=True)
            if ranks.broken():
                raise
            return math.nan


def _next_builder() -> Builder:
    """The builder of the next cell, which has the data and the encoder of the last one already."""
    global _builder
    _builder = _builder.keeping(*_KEPT)
    return _builder


def objective(result: Mapping[str, Any], metric: str) -> float:
    """The metric that Hydra's sweepers receive; NaN after a pipeline without evaluation.

    Raises:
        ConfigError: result.json has no such metric.
    """
    if "metrics" not in result:
        return math.nan
    metrics = result["metrics"]
    if metric not in metrics:
        raise ConfigError(f"objective={metric} is not one of: {', '.join(metrics)}")
    return float(metrics[metric])


def read_captions(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's captions.jsonl; empty where there is no such file, or where it is too large to be shown."""
    path = folder / CAPTIONS
    try:
        return read_json_lines(path) if path.is_file() else []
    except StoreError as error:
        console.print(f"  {printable(str(error))}; its captions are not shown", soft_wrap=True)
        return []
