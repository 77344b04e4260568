"""From runs to findings: settings (what remains when seeds are averaged), lines over a dimension, and how low it goes.

A *setting* is every choice but the seed. *Full size* of a setting is the one with the largest d_q + d_k + d_v among those
that agree in all else. *How low* is the smallest dimension whose paired loss of token F1 against full size has an
interval above -0.02.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from lockdec.metrics import METRICS
from lockdec.report.results import Run, Scalar
from lockdec.report.statistics import LEAST_SEEDS, Estimate, Unit, differences, estimates

MARGIN = 0.02
HEADLINE_METRIC = "token_f1"
CONTROLS = ("locked", "shuffled", "nearest_neighbour")
VIEWS = ("score", *CONTROLS, "full")
ALL_METRICS = (*METRICS, "loss")
LOWER_IS_BETTER = frozenset({"loss"})

DIMENSIONS = ("cross_attention.d_q", "cross_attention.d_k", "cross_attention.d_v")
FACETS = {
    "data.name": "data",
    "data.split": "split",
    "data.split_seed": "split seed",
    "encoder.name": "encoder",
    "cross_attention.heads": "heads",
    "cross_attention.d_q": "d_q",
    "cross_attention.d_k": "d_k",
    "cross_attention.d_v": "d_v",
    "cross_attention.layers": "layers",
    "cross_attention.unlock": "unlock",
    "fewshot.shots": "shots",
    "overrides": "other",
}
# Overrides that a facet already says, and those that choose nothing about the result.
_SAID_BY_A_FACET = re.compile(
    r"cross_attention(\.(heads|d_q|d_k|d_v|layers|unlock))?|encoder|data|data\.split|data\.split_seed"
    r"|fewshot|fewshot\.shots"
)
_CHOOSES_NOTHING = re.compile(
    r"(seed|name|sweep_name|fewshot\.support_seed|dry_run)$|(paths|logger|hydra|callbacks|console)([./]|$)"
)

Facets = tuple[tuple[str, Scalar], ...]


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs that differ in the seed alone."""

    facets: Facets
    runs: Mapping[Unit, Run]

    def facet(self, name: str) -> Scalar:
        """The value of a facet (a key of FACETS)."""
        return dict(self.facets)[name]

    @cached_property
    def parameters(self) -> float | None:
        """Trained parameters; those of the cross-attention where the run does not say what it trained."""
        run = next(iter(self.runs.values()))
        trained = run.number("parameters.trainable")
        return run.number("cross_attention.parameters") if trained is None else trained

    def mean(self, name: str) -> float | None:
        """Mean over the runs of a dotted number (`cost.seconds`)."""
        found = [value for run in self.runs.values() if (value := run.number(name)) is not None]
        return sum(found) / len(found) if found else None

    def values(self, metric: str, view: str = "score") -> dict[Unit, float]:
        """A metric by unit: as it is (`score`), or its gap over a control."""
        found = {}
        for unit, run in self.runs.items():
            value = run.number(f"metrics.{metric}")
            control = 0.0 if view == "score" else run.number(f"controls.{view}.{metric}")
            if value is not None and control is not None:
                found[unit] = value - control
        return found


@dataclass(frozen=True)
class Axis:
    """One or several dimensions that move together, as in a tied sweep."""

    name: str
    members: tuple[str, ...]

    def value(self, setting: Setting) -> float | None:
        """The one value that all members have in this setting, None where they differ."""
        values = {setting.facet(member) for member in self.members}
        value = values.pop()
        return float(value) if not values and isinstance(value, int | float) else None


AXES = (
    Axis("d", DIMENSIONS),
    Axis("d_q = d_k", DIMENSIONS[:2]),
    Axis("d_k", DIMENSIONS[1:2]),
    Axis("d_v", DIMENSIONS[2:]),
    Axis("d_q", DIMENSIONS[:1]),
)


@dataclass(frozen=True)
class Line:
    """Settings that differ along one axis only, smallest first. `context` is what they share beside dimensions."""

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
    """`first - second` of token F1 over shared seeds, for two settings that differ in one choice."""

    change: str
    first: Setting
    second: Setting
    difference: Estimate


@dataclass(frozen=True)
class HowLow:
    """What one line says about the smallest dimension that is enough. `losses` has every setting but full size."""

    line: Line
    full: Setting
    losses: tuple[tuple[Setting, Estimate], ...]
    smallest: Setting | None
    larger_that_fail: tuple[Setting, ...] = field(default=())


class Study:
    """All findings of a collection of runs. Runs that did not end well, or have no metrics, take no part."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.settings, self.notes = _group(runs)
        self._number = {setting: number for number, setting in enumerate(self.settings)}
        self.metrics = tuple(
            m for m in ALL_METRICS if any(setting.values(m) for setting in self.settings)
        )
        self.full_size = _full_sizes(self.settings)
        self._estimates = self._estimate_all()

    def __bool__(self) -> bool:
        return bool(self.settings)

    def number(self, setting: Setting) -> int:
        """The place of a setting in `settings`."""
        return self._number[setting]

    def estimate(self, setting: Setting, metric: str = HEADLINE_METRIC, view: str = "score") -> Estimate | None:
        """Mean and interval of a metric: its score, its gap over a control, or (`full`) its paired loss to full size."""
        return self._estimates.get((metric, view), {}).get(setting)

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """The facets in which the settings differ."""
        return tuple(name for name in FACETS if len({s.facet(name) for s in self.settings}) > 1)

    def label(self, setting: Setting, without: Iterable[str] = ()) -> str:
        """What sets a setting apart from the others, in words; equal dimensions are said once."""
        return describe(((n, v) for n, v in setting.facets if n in self.varying and n not in without), setting)

    @cached_property
    def best(self) -> Setting | None:
        """The setting with the highest mean token F1."""
        scored = [(e.mean, s) for s in self.settings if (e := self.estimate(s)) is not None]
        return max(scored, key=lambda pair: pair[0])[1] if scored else None

    @cached_property
    def smallest(self) -> Setting | None:
        """The setting with the fewest trained parameters among those that see the best one's data, shots and encoder."""
        if self.best is None:
            return None
        same = ("data.name", "data.split", "data.split_seed", "encoder.name", "fewshot.shots")
        rivals = [
            s for s in self.settings if s.parameters and all(s.facet(n) == self.best.facet(n) for n in same)
        ]
        return min(rivals, key=lambda s: s.parameters or 0.0) if rivals else None

    def lines(self, axis: Axis) -> list[Line]:
        """Lines of at least two settings along an axis. Of lines that differ in other dimensions, the largest."""
        found: dict[Facets, Line] = {}
        for fixed, settings in _split(self.settings, axis.members, lambda s: axis.value(s) is not None):
            ordered = tuple(sorted(settings, key=lambda s: axis.value(s) or 0.0))
            line = Line(axis, _without(fixed, DIMENSIONS), fixed, ordered)
            rival = found.get(line.context)
            if len(ordered) > 1 and (rival is None or _size(ordered[-1]) > _size(rival.settings[-1])):
                found[line.context] = line
        return list(found.values())

    @cached_property
    def main_lines(self) -> list[Line]:
        """The lines of the axis that has most points, tied dimensions first."""
        return max((self.lines(axis) for axis in AXES), key=lambda lines: max([0, *(len(li.settings) for li in lines)]))

    def grids(self, rows: Axis, columns: Axis) -> list[Grid]:
        """Grids of at least two rows and two columns, richer than one row and one column crossing."""
        found = []
        moving = (*rows.members, *columns.members)

        def on_both(setting: Setting) -> bool:
            return rows.value(setting) is not None and columns.value(setting) is not None

        for fixed, settings in _split(self.settings, moving, on_both):
            height = len({rows.value(s) for s in settings})
            width = len({columns.value(s) for s in settings})
            if height > 1 and width > 1 and len(settings) >= height + width:
                found.append(Grid(rows, columns, _without(fixed, DIMENSIONS), fixed, tuple(settings)))
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
        return [
            Comparison(change, first, second, estimate)
            for (change, first, second), estimate in zip(pairs, estimates(rows), strict=True)
            if estimate
        ]

    def front(self, metric: str, view: str) -> list[Setting]:
        """Settings that no other beats with as few trained parameters, fewest first (the Pareto front)."""
        sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
        ranked = sorted(
            (s.parameters, -sign * e.mean, self.number(s))
            for s in self.settings
            if s.parameters is not None and (e := self.estimate(s, metric, view)) is not None
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
        losses = tuple(
            (setting, loss)
            for setting in line.settings
            if setting is not full and (loss := self.estimate(setting, view="full")) is not None
        )
        enough = [s for s, loss in losses if loss.low is not None and loss.low > -MARGIN]
        smallest = enough[0] if enough else None
        start = line.settings.index(smallest) if smallest else 0
        fail = tuple(s for s, _ in losses if smallest and s not in enough and line.settings.index(s) > start)
        return HowLow(line, full, losses, smallest, fail)


def describe(facets: Iterable[tuple[str, Scalar]], setting: Setting | None = None) -> str:
    """Facets in words: `d 4 · 256 shots`. Dimensions that are all equal in the setting are said as one d."""
    rest = dict(facets)
    parts = []
    if setting is not None and any(n in rest for n in DIMENSIONS) and AXES[0].value(setting) is not None:
        parts.append(f"d {setting.facet(DIMENSIONS[0])}")
        rest = {name: value for name, value in rest.items() if name not in DIMENSIONS}
    for name, value in rest.items():
        if name == "fewshot.shots":
            parts.append(f"{value} shots")
        elif name == "overrides":
            parts.append(str(value) if value else "no other choice")
        else:
            parts.append(str(value) if name == "encoder.name" else f"{FACETS[name]} {value}")
    return " · ".join(parts)


def has_interval(estimate: Estimate | None) -> bool:
    """Whether there were seeds enough for an interval."""
    return estimate is not None and estimate.n >= LEAST_SEEDS


def _group(runs: Sequence[Run]) -> tuple[tuple[Setting, ...], list[str]]:
    groups: dict[Facets, dict[Unit, Run]] = {}
    repeated, decoders = 0, dict[Facets, set[str]]()
    for run in runs:
        if run.status != "ok" or run.number(f"metrics.{HEADLINE_METRIC}") is None:
            continue
        facets = _facets(run)
        units = groups.setdefault(facets, {})
        unit = (_whole(run.number("seed")), _whole(run.number("fewshot.support_seed")))
        if unit in units:
            repeated += 1
        if unit not in units or run.text("finished") >= units[unit].text("finished"):
            units[unit] = run
        decoders.setdefault(facets, set()).update(s.key for s in run.stages if s.name == "pretrain")
    notes = []
    if repeated:
        notes.append(f"{repeated} runs repeat a setting and seed; the one that finished last counts.")
    if mixed := sum(len(keys) > 1 for keys in decoders.values()):
        notes.append(f"{mixed} settings mix several pretrained decoders; their intervals also cover that choice.")
    ordered = sorted(groups.items(), key=lambda item: [_sort_key(value) for _, value in item[0]])
    return tuple(Setting(facets, units) for facets, units in ordered), notes


def _facets(run: Run) -> Facets:
    others = []
    for override in run.overrides:
        key = override.lstrip("+~").partition("=")[0]
        if not _SAID_BY_A_FACET.fullmatch(key) and not _CHOOSES_NOTHING.match(key):
            others.append(override.lstrip("+"))
    other = " ".join(sorted(others))
    return tuple((name, other if name == "overrides" else run.values.get(name)) for name in FACETS)


def _full_sizes(settings: Sequence[Setting]) -> dict[Setting, Setting]:
    groups = _split(settings, DIMENSIONS, lambda _: True)
    return {setting: max(group, key=_size) for _, group in groups for setting in group}


def _split(
    settings: Sequence[Setting], moving: Sequence[str], belongs: Callable[[Setting], bool]
) -> Iterator[tuple[Facets, list[Setting]]]:
    """Groups of the settings that agree in every facet but the moving ones."""
    groups: dict[Facets, list[Setting]] = {}
    for setting in settings:
        if belongs(setting):
            groups.setdefault(_without(setting.facets, moving), []).append(setting)
    yield from groups.items()


def _only_change(first: Setting, second: Setting) -> str:
    """The name of the one choice in which two settings differ, empty when it is none or several."""
    changed = [name for (name, a), (_, b) in zip(first.facets, second.facets, strict=True) if a != b]
    if len(changed) == 1:
        return FACETS[changed[0]]
    for axis in AXES[:2]:
        if changed == list(axis.members) and axis.value(first) is not None and axis.value(second) is not None:
            return axis.name
    return ""


def _without(facets: Facets, names: Sequence[str]) -> Facets:
    return tuple((name, value) for name, value in facets if name not in names)


def _size(setting: Setting) -> tuple[float, float]:
    dimensions = [setting.facet(name) for name in DIMENSIONS]
    return sum(float(d) for d in dimensions if isinstance(d, int | float)), setting.parameters or 0.0


def _sort_key(value: Scalar) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
