"""docs/study/rivals.md: bridges at equal budget."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import pyplot

from lockdec.report.headline import interval
from lockdec.report.results import Run
from lockdec.report.settings import Setting
from lockdec.report.study import Study
from measurements.estimates import COLOURS, CONTROLS, DOCS, control, difference, neighbour, score, table, whiskers

BRIDGES = (  # in the order of docs/bridges.md
    "cross_attention",
    "prefix_linear",
    "prefix_mlp",
    "prefix_states",
    "lora",
    "full",
    "resampler",
    "retrieval",
    "retrieval_cross_attention",
)
WIDE = 256  # pairs of the table with all metrics
LARGE = 400_000  # parameters
Cells = dict[tuple[str, int], Setting]  # by bridge and number of pairs


def cells(study: Study, parameters: int | None = None) -> Cells:
    """The settings of a study, or those for which this number of parameters was asked."""
    found: Cells = {}
    for setting in study.settings:
        if parameters is None or asked(next(iter(setting.runs.values()))) == parameters:
            found[cell(setting)] = setting
    return found


def cell(setting: Setting) -> tuple[str, int]:
    """The bridge of a setting and its number of pairs."""
    return str(setting.facet("bridge.kind")), int(str(setting.facet("fewshot.shots")))


def asked(run: Run) -> int:
    """The number of parameters that a run was to have."""
    return int(dict(word.split("=", 1) for word in run.overrides)["bridge.parameters"])


def bridges_and_shots(found: Cells) -> tuple[list[str], list[int]]:
    """Its bridges, in their order, and its numbers of pairs."""
    kinds, shots = zip(*found, strict=True)
    return [kind for kind in BRIDGES if kind in kinds], sorted(set(shots))


def compared(found: Cells, name: str) -> dict[str, str]:
    """Rows of bridges: scores by the number of pairs, differences to cross-attention, and all metrics."""
    kinds, shots = bridges_and_shots(found)
    scores, gaps, others = [], [], []
    for kind in kinds:
        line = {count: found[kind, count] for count in shots if (kind, count) in found}
        at = [f"`{kind}`", f"{max(setting.parameters or 0 for setting in line.values()):,.0f}"]
        scores.append([*at, *(interval(score(line[count])) if count in line else "" for count in shots)])
        if kind != BRIDGES[0]:
            gaps.append([*at, *differences(line, {count: found[BRIDGES[0], count] for count in shots})])
        if WIDE in line:
            rest = (interval(score(line[WIDE], metric)) for metric in ("exact", "cider_d", "chrf"))
            views = (interval(score(line[WIDE], view=control), signed=True) for control in CONTROLS)
            others.append([*at, *rest, *views])
    for kind in ("nearest_neighbour", "prior"):
        copied = (interval(control(found[BRIDGES[0], count], kind)) for count in shots)
        scores.append([f"control `{kind}`", "", *copied])
    head, pairs = ["`bridge=`", "trained"], [f"{count:,} pairs" for count in shots]
    over = ["over prior", "over shuffled", "over nearest_neighbour"]
    return {
        name: table([*head, *pairs], scores),
        f"{name} difference": table([*head, *pairs], gaps),
        f"{name} metrics": table([*head, "exact", "CIDEr-D", "chrF", *over], others),
    }


def differences(line: Mapping[int, Setting], others: Mapping[int, Setting]) -> list[str]:
    """The paired difference between two settings at each number of pairs of the second; empty where it is unknown."""
    both = [(line.get(count), other) for count, other in others.items()]
    return [interval(difference(one, other), signed=True) if one else "" for one, other in both]


def rivals(study: Study) -> dict[str, str]:
    """Tables of the small decoder, and a picture."""
    found = cells(study)
    kinds, shots = bridges_and_shots(found)
    figure, axes = pyplot.subplots(figsize=(7, 4.6), layout="constrained")
    for number, (kind, colour) in enumerate(zip(kinds, COLOURS, strict=False)):
        line = {count: found[kind, count] for count in shots if (kind, count) in found}
        shifted = [count * 1.02 ** (number - len(kinds) / 2) for count in line]
        whiskers(axes, shifted, [score(setting) for setting in line.values()], colour, kind)
    copied = [neighbour(found[BRIDGES[0], count]).mean for count in shots]
    axes.plot(shots, copied, ":", color="#888888", label="nearest_neighbour")
    axes.set_xscale("log", base=2)
    axes.set_xticks(shots, [f"{count:,}" for count in shots])
    axes.set_xlabel("pairs")
    axes.set_title(f"token F1 at {LARGE:,} trained parameters", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(DOCS / "study" / "rivals.png", dpi=130)
    return compared(found, "rivals")


def rivals_german(study: Study) -> dict[str, str]:
    """Tables of German names that MiniLM encodes."""
    return compared(cells(study), "rivals_german")


def rivals_language(study: Study) -> dict[str, str]:
    """Tables of SmolLM2 in the place of the small decoder.

    Some commands named the optimizer that a bridge has anyway, so that their runs are settings of their own.
    """
    alike: dict[tuple[str, int], list[Setting]] = {}
    for setting in study.settings:
        alike.setdefault(cell(setting), []).append(setting)
    return compared({at: together(settings) for at, settings in alike.items()}, "rivals_language")


def together(settings: list[Setting]) -> Setting:
    """One setting with the runs of all; ValueError where they were trained in different ways."""
    ways = {(setting.parameters, setting.mean("finetune.learning_rate")) for setting in settings}
    runs = {unit: run for setting in settings for unit, run in setting.runs.items()}
    if len(ways) > 1 or len(runs) < sum(len(setting.runs) for setting in settings):
        raise ValueError(f"not one setting: {[dict(setting.facets) for setting in settings]}")
    return Setting(settings[0].facets, runs)


def rivals_budgets(study: Study, name: str = "rivals_budgets") -> dict[str, str]:
    """A row per bridge at a small budget: its scores, and differences to the large one and to cross-attention."""
    few = min(map(asked, study.runs))
    small, large = cells(study, few), cells(study, LARGE)
    kinds, shots = bridges_and_shots(small)
    ours = {count: small[BRIDGES[0], count] for count in shots}
    rows, larger, gaps = [], [], []
    for kind in kinds:
        line = {count: small[kind, count] for count in shots if (kind, count) in small}
        trained = f"{max(setting.parameters or 0 for setting in line.values()):,.0f}"
        at = [f"`{kind}`", trained]
        rows.append([*at, *(interval(score(line[count])) if count in line else "" for count in shots)])
        larger.append([*at, *differences(line, {count: large[kind, count] for count in shots})])
        if kind != BRIDGES[0]:
            gaps.append([*at, *differences(line, ours)])
    pairs = [f"{count:,} pairs" for count in shots]
    return {
        name: table(["`bridge=`", "trained", *pairs], rows),
        f"{name} large": table(["`bridge=`", "trained", *pairs], larger),
        f"{name} difference": table(["`bridge=`", "trained", *pairs], gaps),
    }


def rivals_german_budgets(study: Study) -> dict[str, str]:
    """The same of German names that MiniLM encodes."""
    return rivals_budgets(study, "rivals_german_budgets")


def rivals_tuning(study: Study, name: str = "rivals_tuning") -> dict[str, str]:
    """One row per bridge and setting of its optimizer, on the validation split."""
    rows = []
    for setting in study.settings:
        run, place = next(iter(setting.runs.values())), BRIDGES.index(str(setting.facet("bridge.kind")))
        typed = dict(word.lstrip("+").split("=", 1) for word in run.overrides)
        usual = "adamw" if BRIDGES[place] in ("lora", "full") else "muon"
        kind = {"adamw": "AdamW", "muon": "Muon"}[typed.get("finetune.optimizer.kind", usual)]
        rate = 10 * (setting.mean("finetune.learning_rate") or 0.0)  # the last of a cosine that falls to a tenth
        steps = int(typed.get("finetune.steps", "0"))
        sizes = " ".join(f"{key}={typed[key]}" for key in ("bridge.length", "encoder.grid") if key in typed)
        scores = (interval(score(setting, metric)) for metric in ("token_f1", "exact", "cider_d"))
        training = setting.mean("finetune.loss")
        optimizer = "" if training is None else f"{kind} at {rate:.1g}{f', {steps} steps' if steps else ''}"
        row = [f"`bridge={BRIDGES[place]}{' ' if sizes else ''}{sizes}`", optimizer, *scores]
        rows.append((place, sizes, kind == "AdamW", rate, steps, [*row, "" if training is None else f"{training:.3f}"]))
    head = ["", "optimizer", "token F1", "exact", "CIDEr-D", "training loss"]
    return {name: table(head, [row for *_, row in sorted(rows, key=lambda row: row[:-1])])}


def rivals_language_tuning(study: Study) -> dict[str, str]:
    """The same with SmolLM2."""
    return rivals_tuning(study, "rivals_language_tuning")
