"""Which runs form one setting (every choice but the seed is equal), which choices differ, and their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lockdec.evaluation.result import HARMLESS
from lockdec.report.results import Run, Scalar
from lockdec.report.statistics import Unit

HEADLINE_METRIC = "token_f1"

DIMENSIONS = ("cross_attention.d_q", "cross_attention.d_k", "cross_attention.d_v")
FACETS = {
    "data.name": "data",
    "data.split": "split",
    "data.split_seed": "split seed",
    "data.evaluated": "evaluated on",
    "encoder.name": "encoder",
    "cross_attention.heads": "heads",
    "cross_attention.d_q": "d_q",
    "cross_attention.d_k": "d_k",
    "cross_attention.d_v": "d_v",
    "cross_attention.layers": "layers",
    "cross_attention.unlock": "unlock",
    "bridge.kind": "bridge",
    "bridge.wanted": "budget",
    "fewshot.shots": "shots",
    "trainer.precision": "precision",
    "overrides": "other choices",
}
SIZES = tuple(name for name in FACETS if name.startswith("cross_attention."))
# The facet that records the choice of an override, where the run has that facet.
_RECORDED_BY = {
    **{name: name for name in (*DIMENSIONS, "cross_attention.heads", "cross_attention.layers")},
    "cross_attention.unlock": "cross_attention.unlock",
    "cross_attention": "cross_attention.d_k",
    "encoder": "encoder.name",
    "data": "data.name",
    "data.split": "data.split",
    "data.split_seed": "data.split_seed",
    "evaluate.split": "data.evaluated",
    "bridge": "bridge.kind",
    "bridge.parameters": "bridge.wanted",
    "fewshot": "fewshot.shots",
    "fewshot.shots": "fewshot.shots",
}
_TOLD_ELSEWHERE = re.compile(r"(seed|fewshot\.support_seed|trainer|trainer\.precision)$").match

_FULL_PRECISION = "32-true"
_OF_A_BRIDGE = re.compile(r"bridge\.").match

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
        """Trained parameters; those of the cross-attention where the run has not recorded them."""
        run = next(iter(self.runs.values()))
        trained = run.number("parameters.trainable")
        return run.number("cross_attention.parameters") if trained is None else trained

    def mean(self, name: str) -> float | None:
        """Mean over the runs of a dotted number (`cost.peak_memory_mb`)."""
        return _mean(run.number(name) for run in self.runs.values())

    @property
    def made_in(self) -> float | None:
        """Mean over the runs of the seconds that making their stages took, whether in the run or before."""
        return _mean(run.made_in for run in self.runs.values())

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


def group(runs: Sequence[Run]) -> tuple[tuple[Setting, ...], list[str]]:
    """The settings of all runs that ended well, in the order of their facets, and what should be noted."""
    groups: dict[Facets, dict[Unit, Run]] = {}
    repeated, decoders, encoded = 0, dict[Facets, set[str]](), dict[Facets, set[str]]()
    taking_part = [run for run in runs if run.status == "ok" and run.number(f"metrics.{HEADLINE_METRIC}") is not None]
    for run, facets in zip(taking_part, _facets_of(taking_part), strict=True):
        units = groups.setdefault(facets, {})
        unit = (_whole(run.number("seed")), _whole(run.number("fewshot.support_seed")))
        if unit in units:
            repeated += 1
        if unit not in units or run.text("finished") >= units[unit].text("finished"):
            units[unit] = run
        decoder = [stage.key for stage in run.stages if stage.name in ("pretrain", "adapt")]
        decoders.setdefault(facets, set()).update(decoder[-1:])
        encoded.setdefault(facets, set()).update(stage.key for stage in run.stages if stage.name == "attach")
    notes = []
    if repeated:
        runs_repeat = "1 run repeats" if repeated == 1 else f"{repeated} runs repeat"
        notes.append(f"{runs_repeat} a setting and seed; the one that finished last counts.")
    for keys, what in (
        (decoders, "several pretrained decoders; the intervals also cover that choice."),
        (
            encoded,
            "states of several data sets or encoders: an encoder was trained anew, or files have changed.",
        ),
    ):
        if mixed := sum(len(several) > 1 for several in keys.values()):
            notes.append(f"{'1 setting mixes' if mixed == 1 else f'{mixed} settings mix'} {what}")
    ordered = sorted(groups.items(), key=lambda item: [_sort_key(value) for _, value in item[0]])
    return tuple(Setting(facets, units) for facets, units in ordered), notes


def _facets_of(runs: Sequence[Run]) -> list[Facets]:
    """The facets of each run. Options of a bridge are no choice of their own where it has the same ones in all runs."""
    chosen = [_choices(run) for run in runs]
    options: dict[Scalar, set[tuple[str, ...]]] = {}
    for found, others in chosen:
        options.setdefault(found["bridge.kind"], set()).add(tuple(filter(_OF_A_BRIDGE, others)))
    for found, others in chosen:
        alike = len(options[found["bridge.kind"]]) == 1
        found["overrides"] = " ".join(o for o in others if not (alike and _OF_A_BRIDGE(o)))
    return [tuple(found.items()) for found, _ in chosen]


def _choices(run: Run) -> tuple[dict[str, Scalar], list[str]]:
    """The recorded choices of a run by facet, and those that no other facet records."""
    found = {name: run.values.get(name) for name in FACETS}
    found["bridge.kind"] = found["bridge.kind"] or "cross_attention"  # as of older runs
    found["trainer.precision"] = _precision(run)
    if found["bridge.wanted"] is not None:
        found |= dict.fromkeys(SIZES)  # they follow from the budget; those that were typed are other choices
    others = []
    for override in run.overrides:
        key, _, choice = override.lstrip("+~").partition("=")
        if key in ("encoder", "data") and _letters(choice) != _letters(run.text(f"{key}.name")):
            # The choice tells apart what one class name does not (efficientnet_128 and efficientnet_224).
            found[f"{key}.name"] = choice
        elif found.get(_RECORDED_BY.get(key, "")) is None and not HARMLESS(key) and not _TOLD_ELSEWHERE(key):
            others.append(override.lstrip("+"))
    return found, sorted(others)


def _precision(run: Run) -> str | None:
    """In which precision a run trained; None for full precision. Older runs do not record it."""
    typed = dict(override.lstrip("+~").partition("=")[::2] for override in run.overrides)
    of_group = "bf16-mixed" if typed.get("trainer") == "gpu" else _FULL_PRECISION
    found = run.text("trainer.precision") or typed.get("trainer.precision", of_group).strip("'\"")
    return found if found != _FULL_PRECISION else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def split(
    settings: Sequence[Setting], moving: Sequence[str], belongs: Callable[[Setting], bool] = lambda _: True
) -> Iterator[tuple[Facets, list[Setting]]]:
    """Groups of the settings that agree in every facet but the moving ones."""
    groups: dict[Facets, list[Setting]] = {}
    for setting in settings:
        if belongs(setting):
            groups.setdefault(without(setting.facets, moving), []).append(setting)
    yield from groups.items()


def without(facets: Facets, names: Sequence[str]) -> Facets:
    """The facets but these."""
    return tuple((name, value) for name, value in facets if name not in names)


def describe(facets: Iterable[tuple[str, Scalar]]) -> str:
    """Facets in words: `d 4 · 256 shots`. Equal dimensions appear once: d for all three, or `d_q, d_k`."""
    rest = dict(facets)
    parts = []
    together = ((DIMENSIONS, "d"), (DIMENSIONS[:2], "d_q, d_k"), *(((d,), FACETS[d]) for d in DIMENSIONS))
    for members, name in together:
        if all(member in rest for member in members) and len({rest[member] for member in members}) == 1:
            if rest[members[0]] is not None:
                parts.append(f"{name} {rest[members[0]]}")
            rest = {other: value for other, value in rest.items() if other not in members}
    for name, value in rest.items():
        if name == "fewshot.shots":
            parts.append(f"{value} shots")
        elif name == "overrides":
            parts += [str(value)] if value else []
        elif value is not None:
            parts.append(str(value) if name in ("encoder.name", "bridge.kind") else f"{FACETS[name]} {value}")
    return " · ".join(parts) or ("no other choice" if "overrides" in rest else "")


def _sort_key(value: Scalar) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
