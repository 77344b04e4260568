"""What each figure shows, as data for Plotly that names settings instead of numbers.

A trace lists settings by number; its `fill` is the axis of their estimates (`x`, `y` or `z`). page.js looks the
estimates up for the chosen metric and control, so every figure exists for every metric, as a score and as a gap over
a control, and no number is stored twice. Colours are CSS
variables: one set for light, one for dark.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lockdec.report.results import Run, curves
from lockdec.report.settings import AXES, DIMENSIONS, FACETS, Facets, Setting, describe, split, without
from lockdec.report.study import Study

MOST_SERIES = 8
MOST_GRIDS = 6
MOST_ROWS = 40
MOST_POINTS = 400
HEIGHT = 380  # of a figure, in pixels
LEAST_SMOOTHED = 30  # points of a learning curve, from which on it is smoothed
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash")

SCORE_AND_GAP = ("score", "control")
WHISKERS = "Whiskers: 95 % intervals over seeds. Open markers: no interval."
Trace = dict[str, Any]
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Figure:
    """One figure of the page: a panel for each of `views` (study.VIEWS, `control` or `given`)."""

    id: str
    title: str
    caption: str
    views: tuple[str, ...]
    traces: tuple[Trace, ...]
    layout: dict[str, Any]
    height: int = HEIGHT


def of_study(study: Study) -> list[Figure]:
    """Every figure that the settings of a sweep allow, in the order of the page."""
    figures = [*_over_dimension(study), *_over_shots(study), *_grids(study), *_pareto(study)]
    choices = [name for name in study.varying if name not in (*DIMENSIONS, "fewshot.shots")]
    figures += [figure for name in choices if (figure := _choice(study, name)) is not None]
    return figures + _forest(study)


def learning_curves(runs: Sequence[tuple[str, Run]]) -> tuple[list[Figure], list[str]]:
    """A figure for each stage that was measured repeatedly: all losses of one run, or one loss of each of several.

    Of several runs it is the validation loss where there is a curve of it, once for each artifact. The second list has
    a line for each curve that is damaged.
    """
    drawn: dict[str, dict[str, tuple[str, dict[str, Points]]]] = {}
    users: dict[tuple[str, str], int] = {}
    notes: list[str] = []
    for label, run in runs:
        keys = {stage.name: stage.key for stage in run.stages}
        read, damaged = curves(run)
        notes += damaged
        for stage, metrics in read.items():
            losses = {name: points for name, points in metrics.items() if "loss" in name and len(points) > 1}
            if losses:
                key = keys.get(stage) or run.label
                drawn.setdefault(stage, {}).setdefault(key, (label, losses))
                users[stage, key] = users.get((stage, key), 0) + 1
    found = []
    for number, (stage, artifacts) in enumerate(drawn.items()):
        lines: list[tuple[str, Points]] = []
        for key, (label, losses) in artifacts.items():
            if len(runs) == 1:
                lines += sorted(losses.items())
                continue
            name = max(losses, key=lambda name: ("val" in name, name))
            shared = users[stage, key] - 1
            also = f" and {shared} other setting{'s' if shared > 1 else ''}" if shared else ""
            lines.append((name if users[stage, key] == len(runs) else f"{name}, {label}{also}", losses[name]))
        kinds = {name.partition(", ")[0] for name, _ in lines}
        if len(lines) > 1 and len(kinds) == 1:  # what all lines show is said once, at the axis
            lines = [(name.partition(", ")[2], points) for name, points in lines]
        shown = lines[:MOST_SERIES]
        smooth = any(len(points) >= LEAST_SMOOTHED for _, points in shown)
        caption = "Loss by training step, from the stage's metrics.csv."
        if smooth:
            caption += " Thin lines: as measured. Thick lines: means of neighbouring measurements."
        if len(runs) > 1:
            caption += " One line for each artifact, at most eight."
        found.append(
            Figure(
                f"curve-{number}",
                f"Learning curve of {stage}",
                caption,
                ("given",),
                tuple(trace for place, (name, points) in enumerate(shown) for trace in _curve(place, name, points)),
                {
                    "xaxis": {"title": {"text": "step"}, "zeroline": False},
                    "yaxis": {"title": {"text": kinds.pop() if len(kinds) == 1 else "loss"}},
                },
            )
        )
    return found, notes


def _curve(number: int, name: str, points: Points) -> list[Trace]:
    """The line of a loss, smoothed where it has many points, and then in front of the loss as measured."""
    style = _style(number, name)
    steps, values = [step for step, _ in points], [value for _, value in points]
    if len(points) < LEAST_SMOOTHED:
        return [style | {"x": steps, "y": values}]
    kept = slice(None, None, -(-len(points) // MOST_POINTS))
    raw = {"mode": "lines", "showlegend": False, "hoverinfo": "skip", "opacity": 0.35}
    thin = {"line": style["line"] | {"width": 1, "dash": "solid"}}
    smoothed = [round(value, 5) for value in _smoothed(values)]
    return [
        style | raw | thin | {"x": steps[kept], "y": values[kept]},
        style | {"mode": "lines", "x": steps[kept], "y": smoothed[kept]},
    ]


def line(number: int, name: str, xs: Sequence[float], ys: Sequence[float]) -> Trace:
    """A line with markers through points that do not depend on the chosen metric."""
    return _style(number, name) | {"x": list(xs), "y": list(ys)}


def _smoothed(values: Sequence[float]) -> list[float]:
    """Means over a fifteenth of the curve around each point; over fewer at the start, where a loss falls fastest."""
    most = max(1, len(values) // 30)
    found = []
    for place in range(len(values)):
        reach = min(most, place)
        found.append(fmean(values[place - reach : place + reach + 1]))
    return found


def _over_dimension(study: Study) -> list[Figure]:
    lines = study.main_lines
    if not lines:
        return []
    axis, shown = lines[0].axis, lines[:MOST_SERIES]
    dimensions = [axis.value(s) or 0.0 for line in shown for s in line.settings]
    names, shared = study.distinguish([line.context for line in shown])
    traces = [
        _style(number, names[number])
        | _points(
            study,
            line.settings,
            [axis.value(s) or 0.0 for s in line.settings],
            _spread(number, len(shown), dimensions),
        )
        for number, line in enumerate(shown)
    ]
    layout = {"xaxis": _log_axis(f"{axis.name} per head", dimensions)}
    caption = _held(_dimensions(shown[0].fixed), shared) + WHISKERS
    return [
        Figure(
            "dimension",
            "Quality against dimension",
            caption + _left_out(lines),
            SCORE_AND_GAP,
            tuple(traces),
            layout,
        ),
        Figure(
            "loss-to-full-size",
            "Loss of quality with smaller dimensions",
            "Difference to full size (the largest dimensions with all else equal), paired by seed. For token "
            "F1, the dotted line is the margin of 0.02: a dimension is enough if its whole whisker lies above it. "
            + caption
            + _left_out(lines),
            ("full",),
            tuple(traces),
            layout,
        ),
    ]


def _over_shots(study: Study) -> list[Figure]:
    groups = [group for group in _by_choice(study, "fewshot.shots") if len(group) > 1]
    if not groups:
        return []
    shown = _spread_out(groups)
    names, shared = study.distinguish([without(group[0].facets, ("fewshot.shots",)) for group in shown])
    shots = [float(s.facet("fewshot.shots") or 0) for group in shown for s in group]
    traces = [
        _style(number, names[number])
        | _points(
            study, group, [float(s.facet("fewshot.shots") or 0) for s in group], _spread(number, len(shown), shots)
        )
        for number, group in enumerate(shown)
    ]
    layout = {"xaxis": _log_axis("shots (pairs in the support set)", shots)}
    caption = _held(shared) + WHISKERS
    return [
        Figure(
            "shots",
            "Quality against number of pairs",
            caption + _left_out(groups),
            SCORE_AND_GAP,
            tuple(traces),
            layout,
        )
    ]


def _grids(study: Study) -> list[Figure]:
    by_name = {axis.name: axis for axis in AXES}
    pairs = [
        (by_name[a], by_name[b]) for a, b in (("d_q = d_k", "d_v"), ("d_k", "d_v"), ("d_q", "d_k"), ("d_q", "d_v"))
    ]
    grids = [grid for rows, columns in pairs for grid in study.grids(rows, columns)]
    names, shared = study.distinguish([grid.context for grid in grids[:MOST_GRIDS]])
    figures = []
    for number, grid in enumerate(grids[:MOST_GRIDS]):
        heights = sorted({grid.rows.value(s) or 0.0 for s in grid.settings})
        widths = sorted({grid.columns.value(s) or 0.0 for s in grid.settings})
        places = {(grid.rows.value(s), grid.columns.value(s)): study.number(s) for s in grid.settings}
        trace = {
            "type": "heatmap",
            "fill": "z",
            "settings": [[places.get((row, column)) for column in widths] for row in heights],
            "x": [f"{width:g}" for width in widths],
            "y": [f"{height:g}" for height in heights],
            "colorscale": "Cividis",
            "xgap": 2,
            "ygap": 2,
        }
        figures.append(
            Figure(
                f"grid-{number}",
                f"{grid.rows.name} \u00d7 {grid.columns.name}" + (f", {names[number]}" if names[number] else ""),
                f"{_held(_dimensions(grid.fixed), shared)}Means over seeds. Intervals are in the hover text "
                "and in the settings table." + (_left_out(grids, MOST_GRIDS) if number == 0 else ""),
                SCORE_AND_GAP,
                (trace,),
                {
                    "xaxis": {"type": "category", "title": {"text": f"{grid.columns.name} per head"}},
                    "yaxis": {"type": "category", "title": {"text": f"{grid.rows.name} per head"}},
                },
            )
        )
    return figures


def _pareto(study: Study) -> list[Figure]:
    settings = [s for s in study.settings if s.parameters]
    if len({s.parameters for s in settings}) < 2:
        return []
    facet = next((n for n in ("fewshot.shots", "encoder.name") if n in study.varying), None)
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        name = describe([(facet, setting.facet(facet))]) if facet else "settings"
        groups.setdefault(name, []).append(setting)
    traces: list[Trace] = [
        {"name": "Pareto front", "fill": "y", "front": True, "mode": "lines"}
        | {"line": {"color": "var(--muted)", "width": 2, "shape": "hv"}, "settings": [], "x": []}
    ]
    for number, (name, group) in enumerate(list(groups.items())[:MOST_SERIES]):
        style = _style(number, name) | {"mode": "markers"}
        traces.append(style | _points(study, group, [s.parameters or 0.0 for s in group]))
    caption = (
        "The line is the Pareto front: settings that no other beats with as few or fewer trained parameters. "
        + WHISKERS
        + (" Settings that train nothing are left out." if len(settings) < len(study.settings) else "")
    )
    sizes = [s.parameters for s in settings if s.parameters]
    steps = [(f, 10**power) for power in range(13) for f in (1, 2, 5)]
    ticks = [factor * power for factor, power in steps if min(sizes) / 1.5 <= factor * power <= 1.5 * max(sizes)]
    axis = _log_axis("trained parameters", sizes) | {"tickvals": ticks, "ticktext": [_short(tick) for tick in ticks]}
    return [
        Figure(
            "pareto",
            "Quality against trained parameters",
            caption,
            SCORE_AND_GAP,
            tuple(traces),
            {"xaxis": axis},
        )
    ]


def _choice(study: Study, facet: str) -> Figure | None:
    """Settings that differ in one choice only, side by side; None where no two do."""
    groups = [group for group in _by_choice(study, facet) if len(group) > 1]
    if not groups:
        return None
    shown = _spread_out(groups)
    names, shared = study.distinguish([without(group[0].facets, (facet,)) for group in shown])
    values = list(dict.fromkeys(str(s.facet(facet) or "none") for group in shown for s in group))
    listed = len(values) > 3 or sum(map(len, values)) > 36  # below each other, where names would not fit side by side
    traces = []
    for number, group in enumerate(shown):
        offset = (number - (len(shown) - 1) / 2) * min(0.24 if listed else 0.12, 0.7 / len(shown))
        places = [values.index(str(s.facet(facet) or "none")) + offset for s in group]
        style = _style(number, names[number]) | {"mode": "markers"}
        traces.append(style | _points(study, group, places, fill="x" if listed else "y"))
    labels = [_wrapped(html.escape(value, quote=False)) for value in values]
    axis = {"tickvals": list(range(len(values))), "ticktext": labels, "zeroline": False}
    ends = [-0.5, len(values) - 0.5]
    layout = {"yaxis": axis | {"range": ends[::-1]}} if listed else {"xaxis": axis | {"range": ends}}
    room = max(14 * (max(label.count("<br>") for label in labels) + 1), 9 * len(shown)) + 14
    name = "Encoders" if facet == "encoder.name" else FACETS[facet].capitalize()
    return Figure(
        f"choice-{list(FACETS).index(facet)}",
        f"{name} side by side",
        f"Settings that differ in this choice only. {_held(shared)}{WHISKERS}" + _left_out(groups),
        SCORE_AND_GAP,
        tuple(traces),
        layout,
        height=120 + room * len(values) if listed else HEIGHT,
    )


def _forest(study: Study) -> list[Figure]:
    if not 1 < len(study.settings) <= MOST_ROWS:
        return []
    numbers = list(range(len(study.settings)))[::-1]
    trace: Trace = {
        "type": "scatter",
        "mode": "markers",
        "fill": "x",
        "settings": numbers,
        "y": list(range(len(numbers))),
        "marker": {"color": "var(--s0)", "size": 8},
        "showlegend": False,
    }
    labels = [_wrapped(html.escape(study.label(study.settings[number]), quote=False)) for number in numbers]
    room = 10 + 14 * max(label.count("<br>") + 1 for label in labels)
    axis = {"tickvals": list(range(len(numbers))), "ticktext": labels}
    layout = {"yaxis": axis | {"automargin": True, "zeroline": False, "range": [-0.7, len(numbers) - 0.3]}}
    return [
        Figure(
            "forest",
            "All settings",
            WHISKERS,
            SCORE_AND_GAP,
            (trace,),
            layout,
            height=120 + room * len(numbers),
        )
    ]


def _by_choice(study: Study, facet: str) -> list[list[Setting]]:
    """Groups of settings that differ in this facet only, in the order of its values, most values first."""
    return sorted((group for _, group in split(study.settings, (facet,))), key=len, reverse=True)


def _spread_out(groups: list[list[Setting]]) -> list[list[Setting]]:
    """At most MOST_SERIES groups, evenly from all of them, so that small and large dimensions are seen."""
    if len(groups) <= MOST_SERIES:
        return groups
    step = (len(groups) - 1) / (MOST_SERIES - 1)
    return [groups[round(number * step)] for number in range(MOST_SERIES)]


def _points(
    study: Study, settings: Sequence[Setting], places: Sequence[float], spread: float = 1.0, fill: str = "y"
) -> Trace:
    return {
        "fill": fill,
        "settings": [study.number(s) for s in settings],
        "x" if fill == "y" else "y": [place * spread for place in places],
    }


def _style(number: int, name: str) -> Trace:
    colour = f"var(--s{number % MOST_SERIES})"
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": html.escape(name, quote=False) or "all",
        "line": {"color": colour, "dash": DASHES[number % len(DASHES)], "width": 2},
        "marker": {"color": colour, "symbol": SYMBOLS[number % len(SYMBOLS)], "size": 9},
    }


def _spread(number: int, count: int, values: Sequence[float]) -> float:
    """A factor that sets whiskers at one place of a log axis side by side, a hundredth of the axis apart."""
    low, high = _log_range(values)
    return float(10 ** (0.01 * (high - low) * (number - (count - 1) / 2)))


def _log_range(values: Sequence[float]) -> tuple[float, float]:
    low, high = (math.log10(end(value for value in values if value)) for end in (min, max))
    room = max(0.1, 0.08 * (high - low))
    return low - room, high + room


def _log_axis(title: str, values: Sequence[float]) -> dict[str, Any]:
    ticks = sorted({value for value in values if value})
    return {
        "type": "log",
        "title": {"text": title},
        "range": list(_log_range(values)),
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
        "minor": {"ticks": ""},
    }


def _short(number: float) -> str:
    """1,000 as 1k."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def _dimensions(fixed: Facets) -> str:
    return describe((name, value) for name, value in fixed if name in DIMENSIONS)


def _held(*shared: str) -> str:
    parts = " · ".join(part for part in shared if part)
    return f"All with {parts}. " if parts else ""


def _left_out(groups: Sequence[Any], most: int = MOST_SERIES) -> str:
    more = len(groups) - most
    return f" {more} more {'is' if more == 1 else 'are'} in the settings table." if more > 0 else ""


def _wrapped(text: str) -> str:
    return "<br>".join(textwrap.wrap(text, 28, break_long_words=False, break_on_hyphens=False))
