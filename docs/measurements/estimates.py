"""What the tables and figures of all pages share: scores, differences between settings, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from lockdec.report.settings import Setting
from lockdec.report.statistics import Estimate, differences, estimates
from lockdec.report.study import Study

DOCS = Path(__file__).parents[1]
METRIC = "token_f1"
CONTROLS = ("prior", "shuffled", "nearest_neighbour")
# Okabe and Ito, and a grey
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000", "#999999")
Key = tuple[object, ...]


def one(values: Sequence[float]) -> Estimate:
    """The mean over seeds with its interval."""
    found = estimates([list(values)])[0]
    assert found is not None  # there are values
    return found


def score(setting: Setting, metric: str = METRIC, view: str = "score") -> Estimate:
    """A metric of a setting, or its gap over a control."""
    return one(list(setting.values(metric, view).values()))


def difference(setting: Setting, against: Setting, metric: str = METRIC) -> Estimate:
    """The paired difference between two settings over the seeds they share."""
    return one(differences(setting.values(metric), against.values(metric)))


def control(setting: Setting, name: str, metric: str = METRIC) -> Estimate:
    """What a control scores."""
    return one([run.number(f"controls.{name}.{metric}") or 0.0 for run in setting.runs.values()])


def neighbour(setting: Setting) -> Estimate:
    """Token F1 of copying the name of the nearest support input."""
    return control(setting, "nearest_neighbour")


def by(study: Study, *facets: str) -> dict[Key, Setting]:
    """The settings by the values of these facets."""
    return {tuple(setting.facet(f"{name}") for name in facets): setting for setting in study.settings}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as Markdown."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def whiskers(axes: Axes, xs: Sequence[float], points: Sequence[Estimate], colour: str, label: str | None) -> None:
    """A line through the means, with the intervals as whiskers."""
    low = [point.mean - (point.mean if point.low is None else point.low) for point in points]
    high = [(point.mean if point.high is None else point.high) - point.mean for point in points]
    means = [point.mean for point in points]
    axes.errorbar(xs, means, [low, high], color=colour, label=label, marker="o", markersize=4, capsize=3, linewidth=1.4)
