"""From runs to findings: settings averaged over seeds, lines over a dimension, and how low it may go.

A *setting* is every choice but the seed. *Full size* of a setting is the one with the largest sum of d_q,
d_k and d_v among those that agree in all else. A dimension is *enough* if its paired difference of token F1
to full size, and that of every larger dimension, has an interval above -0.02; *how low* is the smallest such
dimension. Dimensions are judged from the largest down, and none after the first that fails. So in 95 % of cases all
that is said of a line is right, however many dimensions it has (Westfall and Krishen 2001: tests in a fixed sequence).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lockdec.evaluation.metrics import LOWER_IS_BETTER, METRICS
from lockdec.evaluation.result import CONTROLS, EARLIER
from lockdec.report.results import Run
from lockdec.report.settings import (
    AXES,
    DIMENSIONS,
    FACETS,
    HEADLINE_METRIC,
    Axis,
    Facets,
    Setting,
    describe,
    group,
    split,
    without,
)
from lockdec.report.statistics import Estimate, differences, estimates, verdicts

MARGIN = 0.02
VIEWS = ("score", *CONTROLS, "full")
METRIC_LABELS = {
    "bleu1": "BLEU-1",
    "bleu2": "BLEU-2",
    "bleu3": "BLEU-3",
    "bleu4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "cider_d": "CIDEr-D",
    "chrf": "chrF",
    "token_f1": "token F1",
    "exact": "exact match",
    "distinct": "distinct captions",
    "loss": "loss",
    "rouge_l_f1": "ROUGE-L (best F1)",
}
ALL_METRICS = tuple(dict.fromkeys((HEADLINE_METRIC, "exact", "cider_d", "chrf", "rouge_l", *METRICS, "loss", *EARLIER)))


@dataclass(frozen=True)
class Line:
    """Settings that differ along one axis only, smallest first. `fixed` is `context` and other dimensions."""

    axis: Axis
    context: Facets
    fixed: Facets
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class Grid:
    """Settings that differ along two axes only."""

    rows: Axis
    columns: Axis
    context: Facets
    fixed: Facets
    settings: tuple[Setting, ...]


@dataclass(frozen=True)
class Comparison:
    """`first - second` of token F1 over shared seeds, for two settings that differ in one choice.

    Attributes:
        verdict: which side of 0 it lies on, corrected for the number of comparisons of the study.
    """

    change: str
    first: Setting
    second: Setting
    difference: Estimate
    verdict: str


@dataclass(frozen=True)
class HowLow:
    """The smallest dimension of a line that is enough. `losses` has all settings but full size."""

    line: Line
    full: Setting
    losses: tuple[tuple[Setting, Estimate], ...]
    smallest: Setting | None


class Study:
    """All findings of a collection of runs. Runs that did not end well, or have no metrics, take no part."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = tuple(runs)  # all of them
        self.settings, self.notes = group(runs)
        self._number = {setting: number for number, setting in enumerate(self.settings)}
        self.metrics = tuple(m for m in ALL_METRICS if any(setting.values(m) for setting in self.settings))
        self.controls = tuple(
            c for c in CONTROLS if any(setting.values(HEADLINE_METRIC, c) for setting in self.settings)
        )
        self.full_size = _full_sizes(self.settings)
        self._estimates = self._estimate_all()

    def __bool__(self) -> bool:
        return bool(self.settings)

    def number(self, setting: Setting) -> int:
        """The place of a setting in `settings`."""
        return self._number[setting]

    def estimate(self, setting: Setting, metric: str = HEADLINE_METRIC, view: str = "score") -> Estimate | None:
        """A metric's score, its gap over a control, or (`full`) its paired difference to full size."""
        return self._estimates.get((metric, view), {}).get(setting)

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """The facets in which the settings differ."""
        return tuple(name for name in FACETS if len({s.facet(name) for s in self.settings}) > 1)

    def label(self, setting: Setting) -> str:
        """What sets a setting apart from the others, in words."""
        return describe((name, value) for name, value in setting.facets if name in self.varying)

    def distinguish(self, contexts: Sequence[Facets]) -> tuple[list[str], str]:
        """A name for each context by what sets it apart from the others, and in words what they share."""
        known = [dict(context) for context in contexts]
        apart = [
            name
            for name in FACETS
            if len({c.get(name) for c in known}) > 1 or (name == "fewshot.shots" and name in self.varying)
        ]
        if any(name in apart for name in DIMENSIONS):
            apart = [name for name in FACETS if name in apart or (name in DIMENSIONS and name in self.varying)]
        names = [describe((n, c[n]) for n in apart if n in c) for c in known]
        shared = [(n, v) for n, v in (contexts[0] if contexts else ()) if n in self.varying and n not in apart]
        return names, describe(shared)

    @cached_property
    def best(self) -> Setting | None:
        """The setting with the highest mean token F1."""
        scored = [(e.mean, s) for s in self.settings if (e := self.estimate(s)) is not None]
        return max(scored, key=lambda pair: pair[0])[1] if scored else None

    @cached_property
    def smallest(self) -> Setting | None:
        """Of the settings with the best one's data, encoder and shots, that with fewest parameters."""
        if self.best is None:
            return None
        same = [n for n in FACETS if n.startswith(("data.", "encoder.", "fewshot."))]
        rivals = [s for s in self.settings if s.parameters and all(s.facet(n) == self.best.facet(n) for n in same)]
        return min(rivals, key=lambda s: s.parameters or 0.0) if rivals else None

    def lines(self, axis: Axis) -> list[Line]:
        """Lines of two or more settings along an axis; of those with other dimensions the largest."""
        found: dict[Facets, Line] = {}
        for fixed, settings in split(self.settings, axis.members, lambda s: axis.value(s) is not None):
            ordered = tuple(sorted(settings, key=lambda s: axis.value(s) or 0.0))
            line = Line(axis, without(fixed, DIMENSIONS), fixed, ordered)
            rival = found.get(line.context)
            if len(ordered) > 1 and (rival is None or _size(ordered[-1]) > _size(rival.settings[-1])):
                found[line.context] = line
        return list(found.values())

    @cached_property
    def main_lines(self) -> list[Line]:
        """The lines of the axis that has most points, tied dimensions first."""
        return max(
            (self.lines(axis) for axis in AXES),
            key=lambda lines: max([0, *(len(li.settings) for li in lines)]),
        )

    def grids(self, rows: Axis, columns: Axis) -> list[Grid]:
        """Grids of at least two rows and two columns, each of them with at least two settings."""
        found = []
        moving = (*rows.members, *columns.members)

        def on_both(setting: Setting) -> bool:
            return rows.value(setting) is not None and columns.value(setting) is not None

        for fixed, settings in split(self.settings, moving, on_both):
            kept = _crossing(settings, rows, columns)
            if kept:
                found.append(Grid(rows, columns, without(fixed, DIMENSIONS), fixed, tuple(kept)))
        return found

    @cached_property
    def how_low(self) -> list[HowLow]:
        """How low the dimension may go, for every line along every axis."""
        return [self._how_low(line) for axis in AXES for line in self.lines(axis)]

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Paired differences of token F1 between settings that differ in one choice and share seeds."""
        pairs = [
            (change, first, second)
            for number, first in enumerate(self.settings)
            for second in self.settings[:number]
            if (change := _only_change(first, second))
        ]
        rows = [differences(a.values(HEADLINE_METRIC), b.values(HEADLINE_METRIC)) for _, a, b in pairs]
        found = [(pair, estimate) for pair, estimate in zip(pairs, estimates(rows), strict=True) if estimate]
        sides = verdicts([estimate for _, estimate in found])
        compared = [Comparison(*pair, estimate, side) for (pair, estimate), side in zip(found, sides, strict=True)]
        return sorted(compared, key=lambda comparison: comparison.change)

    def front(self, metric: str, view: str) -> list[Setting]:
        """Settings that no other beats with as few trained parameters (but some), fewest first: the Pareto front."""
        sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
        ranked = sorted(
            (s.parameters, -sign * e.mean, self.number(s))
            for s in self.settings
            if s.parameters and (e := self.estimate(s, metric, view)) is not None
        )
        front, reached = [], float("inf")
        for _, cost, number in ranked:
            if cost < reached:
                reached = cost
                front.append(self.settings[number])
        return front

    def _estimate_all(self) -> dict[tuple[str, str], dict[Setting, Estimate]]:
        wanted = [(m, view, s) for m in self.metrics for view in VIEWS for s in self.settings]
        rows = []
        for metric, view, setting in wanted:
            if view == "full":
                full = self.full_size[setting]
                pairs = [] if full is setting else differences(setting.values(metric), full.values(metric))
                rows.append(pairs)
            else:
                rows.append(list(setting.values(metric, view).values()))
        found: dict[tuple[str, str], dict[Setting, Estimate]] = {}
        for (metric, view, setting), estimate in zip(wanted, estimates(rows), strict=True):
            if estimate:
                found.setdefault((metric, view), {})[setting] = estimate
        return found

    def _how_low(self, line: Line) -> HowLow:
        full = self.full_size[line.settings[-1]]
        against = [(s, self.estimate(s, view="full")) for s in line.settings if s is not full]
        smallest = None
        for setting, loss in reversed(against):
            if loss is None or loss.low is None or loss.low <= -MARGIN:
                break
            smallest = setting
        losses = tuple((setting, loss) for setting, loss in against if loss is not None)
        return HowLow(line, full, losses, smallest)


def _full_sizes(settings: Sequence[Setting]) -> dict[Setting, Setting]:
    groups = split(settings, DIMENSIONS)
    return {setting: max(members, key=_size) for _, members in groups for setting in members}


def _crossing(settings: list[Setting], rows: Axis, columns: Axis) -> list[Setting]:
    """The settings without those that are alone in their row or column, until none is alone."""
    while True:
        heights = Counter(rows.value(setting) for setting in settings)
        widths = Counter(columns.value(setting) for setting in settings)
        kept = [s for s in settings if heights[rows.value(s)] > 1 and widths[columns.value(s)] > 1]
        if len(kept) == len(settings):
            return kept
        settings = kept


def _only_change(first: Setting, second: Setting) -> str:
    """The name of the one choice in which two settings differ, empty when it is none or several."""
    changed = [name for (name, a), (_, b) in zip(first.facets, second.facets, strict=True) if a != b]
    if len(changed) == 1:
        return FACETS[changed[0]]
    for axis in AXES[:2]:
        if changed == list(axis.members) and axis.value(first) is not None and axis.value(second) is not None:
            return axis.name
    return ""


def _size(setting: Setting) -> tuple[float, float]:
    dimensions = [setting.facet(name) for name in DIMENSIONS]
    return sum(float(d) for d in dimensions if isinstance(d, int | float)), setting.parameters or 0.0
