"""docs/study/rivals.md: bridges at equal budget."""

from __future__ import annotations

from matplotlib import pyplot

from lockdec.report.headline import interval
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
WIDE = 256  # pairs of the table with all metrics


def rivals(study: Study) -> dict[str, str]:
    """Rows of bridges: scores by the number of pairs, differences to cross-attention, all metrics; and a picture."""
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
        rest = (interval(score(wide, name)) for name in ("exact", "cider_d", "chrf"))
        views = (interval(score(wide, view=name), signed=True) for name in CONTROLS)
        others.append([*at, *rest, *views])
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
    over = ["over prior", "over shuffled", "over nearest_neighbour"]
    return {
        "rivals": table([*head, *pairs], scores),
        "rivals difference": table([*head, *pairs], gaps),
        "rivals metrics": table([*head, "exact", "CIDEr-D", "chrF", *over], others),
    }


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
