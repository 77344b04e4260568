"""docs/study/rivals.md: bridges at equal budget."""

from __future__ import annotations

from matplotlib import pyplot

from lockdec.report.headline import interval
from lockdec.report.settings import Setting
from lockdec.report.study import Study
from measurements.estimates import COLOURS, CONTROLS, DOCS, by, control, difference, neighbour, score, table, whiskers

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
WIDE = 256  # pairs, where more than token F1 is shown
REST = ("exact", "CIDEr-D", "chrF", "over prior", "over shuffled", "over nearest_neighbour")


def rivals(study: Study) -> dict[str, str]:
    """One row per bridge: scores and differences to cross-attention by the number of pairs; a picture; all metrics."""
    found = by(study, "bridge.kind", "fewshot.shots")
    settings = {(str(kind), int(str(count))): setting for (kind, count), setting in found.items()}
    shots = sorted({count for _, count in settings})
    kinds = [kind for kind in BRIDGES if (kind, WIDE) in settings]
    ours = {count: settings[BRIDGES[0], count] for count in shots}
    scores, gaps, others = [], [], []
    figure, axes = pyplot.subplots(figsize=(7, 4.6), layout="constrained")
    for number, (kind, colour) in enumerate(zip(kinds, COLOURS, strict=False)):
        line = {count: settings[kind, count] for count in shots if (kind, count) in settings}
        wide = line[WIDE]
        at = [f"`{kind}`", f"{wide.parameters or 0:,.0f}"]
        scores.append([*at, *(interval(score(line[count])) if count in line else "" for count in shots)])
        if kind != BRIDGES[0]:
            both = [(line.get(count), ours[count]) for count in shots]
            gaps.append([*at, *(interval(difference(one, other), signed=True) if one else "" for one, other in both)])
        others.append([*at, *rest(wide)])
        shifted = [count * 1.02 ** (number - len(kinds) / 2) for count in line]
        whiskers(axes, shifted, [score(setting) for setting in line.values()], colour, kind)
    for name in ("nearest_neighbour", "prior"):
        scores.append([f"control `{name}`", "", *(interval(control(ours[count], name)) for count in shots)])
    copied = [neighbour(ours[count]).mean for count in shots]
    axes.plot(shots, copied, ":", color="#888888", label="nearest_neighbour")
    axes.set_xscale("log", base=2)
    axes.set_xticks(shots, [f"{count:,}" for count in shots])
    axes.set_xlabel("pairs")
    axes.set_title("token F1 at 400,000 trained parameters", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(DOCS / "study" / "rivals.png", dpi=130)
    head, pairs = ["`bridge=`", "trained"], [f"{count:,} pairs" for count in shots]
    return {
        "rivals": table([*head, *pairs], scores),
        "rivals difference": table([*head, *pairs], gaps),
        "rivals metrics": table([*head, *REST], others),
    }


def rest(setting: Setting) -> list[str]:
    """The columns of REST."""
    scores = (interval(score(setting, name)) for name in ("exact", "cider_d", "chrf"))
    return [*scores, *(interval(score(setting, view=name), signed=True) for name in CONTROLS)]


def elsewhere(study: Study, name: str) -> dict[str, str]:
    """One row per bridge with another encoder or decoder: token F1, the difference to cross-attention, all else."""
    found = {str(kind): setting for (kind,), setting in by(study, "bridge.kind").items()}
    rows = []
    for kind in (kind for kind in BRIDGES if kind in found):
        behind = interval(difference(found[kind], found[BRIDGES[0]]), signed=True) if kind != BRIDGES[0] else ""
        trained = f"{found[kind].parameters or 0:,.0f}"
        rows.append([f"`{kind}`", trained, interval(score(found[kind])), behind, *rest(found[kind])])
    return {name: table(["`bridge=`", "trained", "token F1", f"less `{BRIDGES[0]}`", *REST], rows)}


def rivals_german(study: Study) -> dict[str, str]:
    """German names that MiniLM encodes."""
    return elsewhere(study, "rivals_german")


def rivals_smollm2(study: Study) -> dict[str, str]:
    """SmolLM2 in the place of the small decoder."""
    return elsewhere(study, "rivals_smollm2")


def rivals_budgets(study: Study) -> dict[str, str]:
    """One row per bridge: its scores at each budget, what the smaller one costs, and the seconds of finetuning."""
    settings: dict[tuple[str, int], Setting] = {}
    for setting in study.settings:
        run = next(iter(setting.runs.values()))
        typed = dict(word.split("=", 1) for word in run.overrides)
        settings[str(setting.facet("bridge.kind")), int(typed["bridge.parameters"])] = setting
    budgets = sorted({budget for _, budget in settings})
    few, many = budgets[0], budgets[-1]
    rows = []
    for kind in BRIDGES:
        own = {budget: settings[kind, budget] for budget in budgets if (kind, budget) in settings}
        if not own:
            continue
        cells = [f"`{kind}`"]
        for budget in budgets:
            cells += (
                [f"{own[budget].parameters or 0:,.0f}", interval(score(own[budget]))] if budget in own else ["", ""]
            )
        both = few in own and many in own
        cells.append(interval(difference(own[few], own[many]), signed=True) if both else "")
        if kind != BRIDGES[0]:
            ahead = (own.get(budget) and difference(own[budget], settings[BRIDGES[0], budget]) for budget in budgets)
            cells += [interval(one, signed=True) if one else "" for one in ahead]
        else:
            cells += ["" for _ in budgets]
        rows.append(cells)
    head = [part for budget in budgets for part in ("trained", f"token F1 at {budget:,}")]
    behind = [f"less `cross_attention` at {budget:,}" for budget in budgets]
    return {"rivals_budgets": table(["`bridge=`", *head, f"less that at {many:,}", *behind], rows)}


def rivals_tuning(study: Study, name: str = "rivals_tuning") -> dict[str, str]:
    """One row per bridge and setting of its optimizer, on the validation split."""
    rows = []
    for setting in study.settings:
        run, place = next(iter(setting.runs.values())), BRIDGES.index(str(setting.facet("bridge.kind")))
        typed = dict(word.split("=", 1) for word in run.overrides)
        adamw = "finetune.optimizer.kind" in typed or BRIDGES[place] in ("lora", "full")
        rate = 10 * (setting.mean("finetune.learning_rate") or 0.0)  # the last of a cosine that falls to a tenth
        sizes = " ".join(f"{key}={typed[key]}" for key in ("bridge.length", "encoder.grid") if key in typed)
        scores = (interval(score(setting, metric)) for metric in ("token_f1", "exact", "cider_d"))
        training = setting.mean("finetune.loss")
        optimizer = "" if training is None else f"{'AdamW' if adamw else 'Muon'} at {rate:.1g}"
        row = [f"`bridge={BRIDGES[place]}{' ' if sizes else ''}{sizes}`", optimizer, *scores]
        rows.append((place, sizes, adamw, rate, [*row, "" if training is None else f"{training:.3f}"]))
    head = ["", "optimizer", "token F1", "exact", "CIDEr-D", "training loss"]
    return {name: table(head, [row for *_, row in sorted(rows, key=lambda row: row[:-1])])}


def rivals_language(study: Study) -> dict[str, str]:
    """The same with a language model."""
    return rivals_tuning(study, "rivals_language")
