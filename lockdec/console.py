"""Terminal output: progress, tables and the closing summary."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from lockdec import redaction
from lockdec.errors import visible
from lockdec.terminal import duration

T = TypeVar("T")

console = Console(highlight=False)
_TOLD: set[str] = set()

LINE_EVERY = 30.0  # seconds between two lines about long work in a log file


def tell_once(line: str) -> None:
    """Print a line unless this process has printed it: what is true of the data is so in every cell of a sweep."""
    if line not in _TOLD:
        _TOLD.add(line)
        console.print(line, soft_wrap=True)


class LongWork:
    """Shows how far long work has come: by a bar in a terminal, by a line every half minute in a log file.

    Args:
        description: what is being done: a stage, or a participle ("encoding inputs").
        total: how many steps or items there are; None where that is not known.
        done: how many are done already.
    """

    def __init__(self, description: str, total: int | None, done: int = 0) -> None:
        self._description, self._total, self._first = description, total, done
        self._started = self._told = time.monotonic()
        self._bar: Progress | None = None
        self._task = TaskID(-1)
        if console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(description, total=total, completed=done, note="")

    def update(self, done: int, note: str = "") -> None:
        """Show that so many are done, with a note beside it."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if now - self._told < LINE_EVERY or done == self._total:
            return
        self._told = now
        line = f"  {self._description}: {done}"
        if self._total is not None:
            line += f" of {self._total}"
            if done > self._first:
                seconds = (now - self._started) * (self._total - done) / (done - self._first)
                line += f", about {duration(seconds)} left"
        console.print(line + (f", {note}" if note else ""), soft_wrap=True, markup=False)

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()


def track(items: Iterable[T], description: str, total: int | None = None, patience: float = 2.0) -> Iterator[T]:
    """Yield the items, showing how far they have come once they have taken longer than `patience` seconds.

    Args:
        items: what to iterate over.
        description: what is being done, as a participle ("encoding drawings").
        total: how many items there are, if `items` has no length.
        patience: seconds before that.
    """
    total = len(items) if total is None and isinstance(items, Sequence) else total
    started, work = time.monotonic(), None
    try:
        for done, item in enumerate(items):
            if work is None and time.monotonic() - started > patience:
                work = LongWork(description, total, done)
            elif work is not None:
                work.update(done)
            yield item
    finally:
        if work is not None:
            work.stop()


class Summary:
    """Prints what a run does, stage by stage, and its results."""

    def __init__(self, to: Console) -> None:
        self.console = to

    def stage(self, name: str, entry: Mapping[str, Any], made_in: float) -> None:
        """Print one line when the artifact of a stage is ready."""
        how = f"reused (made in {made_in:.1f} s)" if entry["reused"] else "made"
        self.console.print(f"  [bold]{name:<9}[/] {entry['seconds']:>7.1f} s  {entry['key'][:12]}  {how}")

    def result(self, result: Mapping[str, Any], captions: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """Print the closing tables: stages, metrics beside their controls, captions beside their references."""
        self.console.print(stage_table(result["stages"]))
        if "metrics" in result:
            others = result.get("strategies", {}) | result["controls"]
            self.console.print(metric_table(result["metrics"], others))
        if "attributes" in result:
            accuracies = dict(result["attributes"])
            self.console.print(metric_table(accuracies.pop("caption"), accuracies, "attribute"))
        if "probe" in result:
            self.console.print(probe_table(result["probe"]))
        if captions:
            self.console.print(caption_table(captions))
        self.console.print(f"\nThis run is in [bold]{escape(str(folder))}[/]", soft_wrap=True)


def stage_table(stages: Mapping[str, Mapping[str, Any]]) -> Table:
    """Whether each stage was made or reused, and its seconds."""
    table = Table(box=SIMPLE)
    for column, side in (("stage", "left"), ("made or reused", "left"), ("seconds", "right"), ("key", "left")):
        table.add_column(column, justify=side)  # type: ignore[arg-type]
    for name, entry in stages.items():
        how = "reused" if entry["reused"] else "made"
        table.add_row(name, how, f"{entry['seconds']:.1f}", entry["key"][:12])
    return table


def metric_table(
    metrics: Mapping[str, float], controls: Mapping[str, Mapping[str, float]], kind: str = "metric"
) -> Table:
    """The metrics of the captions, or how often they get attributes right, beside the same of each control."""
    table = Table(box=SIMPLE)
    table.add_column(kind)
    for name in ("captions", *controls):
        table.add_column(name, justify="right")
    for metric, value in metrics.items():
        others = (control.get(metric) for control in controls.values())
        table.add_row(metric, f"{value:.3f}", *("" if other is None else f"{other:.3f}" for other in others))
    return table


def probe_table(probe: Mapping[str, Any]) -> Table:
    """How often a linear classifier reads each attribute off the mean states, beside the share of the commonest value.

    Args:
        probe: as in `result.json`; `support` and `train` are the inputs that it was fitted on.
    """
    table = Table(box=SIMPLE)
    table.add_column("linear probe")
    columns = ("support", "train", "commonest")
    for column in columns:
        table.add_column(column, justify="right")
    for name in probe["train"]:
        found = (probe[column].get(name) for column in columns)
        table.add_row(printable(name), *("" if value is None else f"{value:.3f}" for value in found))
    return table


def caption_table(captions: Sequence[Mapping[str, Any]]) -> Table:
    """Generated captions beside their references; exact matches are green."""
    table = Table(box=SIMPLE)
    for column in ("input", "caption", "reference"):
        table.add_column(column)
    for row in captions:
        style = "green" if row["caption"] in row["references"] else ""
        table.add_row(
            printable(row.get("input", row["id"])),
            Text(printable(row["caption"]), style=style),
            printable(" / ".join(row["references"])),
        )
    return table


def plan_table(stages: Mapping[str, Mapping[str, Any]]) -> Table:
    """For each stage of a dry run: how often it would be made and reused, and how many seconds that would take."""
    table = Table(box=SIMPLE)
    for column, side in (("stage", "left"), ("to make", "right"), ("reused", "right"), ("seconds", "right")):
        table.add_column(column, justify=side)  # type: ignore[arg-type]
    table.add_column("judged by")
    for name, stage in stages.items():
        known = stage["seconds"] is not None
        seconds = f"{stage['seconds']:.1f}" if known else "?"
        basis = f"{stage['judged_by']} in the store" if known else "nothing in the store"
        table.add_row(name, str(stage["made"]), str(stage["reused"]), seconds, basis)
    return table


def printable(text: str) -> str:
    """The text for a rich terminal, without control characters and secrets, so that no caption can control it."""
    return escape(visible(redaction.text(text)))


def printable_lines(text: str) -> str:
    """As `printable`, line by line; a secret may have several lines."""
    return "\n".join(map(printable, redaction.text(text).splitlines()))
