"""Fill in the measured tables of a page and draw its figures: python docs/measured.py PAGE.md SWEEPS

SWEEPS is the folder of the sweeps whose commands the page names (outputs/sweeps); its runs are also written to the CSV
file beside the page. That file will do instead: every number is then computed anew from the same runs. The text between
`<!-- NAME -->` and `<!-- end -->` is replaced, and figures are drawn beside the page. `python docs/figures.py` tells
which of them no longer follow from today's code.
"""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from placeholders import fill, names

from lockdec.data.composing import PROPERTIES
from lockdec.report.headline import interval
from lockdec.report.results import Run, Scalar, Stage, read
from lockdec.report.settings import Setting
from lockdec.report.statistics import Estimate, differences, estimates
from lockdec.report.study import MARGIN, Study
from lockdec.report.tables import results_csv

STUDY = Path(__file__).parent / "study"
METRIC = "token_f1"
CONTROLS = ("locked", "shuffled", "nearest_neighbour")  # those that every run has
FULL = 32  # the largest dimension, the reference for the others
STEPS = 400  # of finetuning, by default
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


def loss(setting: Setting, against: Setting, metric: str = METRIC) -> Estimate:
    """The paired difference between two settings over the seeds they share."""
    return one(differences(setting.values(metric), against.values(metric)))


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


def tied(study: Study) -> dict[str, str]:
    """Quality against the tied dimension, for every number of shots."""
    settings = by(study, "fewshot.shots", "cross_attention.d_k")
    shots = sorted({int(str(key[0])) for key in settings})
    sizes = sorted({int(str(key[1])) for key in settings})
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    scores, losses, controls = [], [], []
    for number, count in enumerate(shots):
        line = [settings[count, size] for size in sizes]
        colour = COLOURS[number]
        whiskers(left, sizes, [score(setting) for setting in line], colour, f"{count} shots")
        left.axhline(neighbour(line[-1]).mean, color=colour, linestyle=":", linewidth=1)
        smaller = [setting for size, setting in zip(sizes, line, strict=True) if size != FULL]
        gaps = [loss(setting, settings[count, FULL]) for setting in smaller]
        shifted = [size * 1.06 ** (number - (len(shots) - 1) / 2) for size in sizes if size != FULL]
        whiskers(right, shifted, gaps, colour, f"{count} shots")
        scores.append([str(count), *(interval(score(setting)) for setting in line)])
        losses.append([str(count), *(interval(gap, signed=True) for gap in gaps)])
        controls += [
            [
                str(count),
                str(size),
                *(interval(score(setting, view=name), signed=True) for name in CONTROLS),
                interval(score(setting, "exact")),
                interval(score(setting, "cider_d")),
                f"{setting.parameters:,.0f}",
                f"{setting.mean('cost.seconds'):.0f}",
            ]
            for size, setting in zip(sizes, line, strict=True)
        ]
    right.axhline(0, color="#888888", linewidth=0.8)
    right.axhline(-MARGIN, color="#888888", linestyle="--", linewidth=0.8)
    for axes, title in (
        (left, "token F1 (dotted: nearest_neighbour)"),
        (right, f"paired difference to d = {FULL} (dashed: the margin, -{MARGIN})"),
    ):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_xlabel("d = d_q = d_k = d_v per head, 8 heads")
        axes.set_title(title, fontsize=10)
    left.legend(frameon=False)
    figure.savefig(STUDY / "tied.png", dpi=130)
    heads = [f"d = {size}" for size in sizes]
    return {
        "tied": table(["shots", *heads], scores),
        "tied loss": table(["shots", *(head for head, size in zip(heads, sizes, strict=True) if size != FULL)], losses),
        "tied controls": table(
            [
                "shots",
                "d",
                "over locked",
                "over shuffled",
                "over nearest_neighbour",
                "exact",
                "CIDEr-D",
                "trained",
                "seconds",
            ],
            controls,
        ),
    }


def grid(study: Study, rows: str, columns: str, name: str, against: Key) -> dict[str, str]:
    """A table of two dimensions: token F1, and the paired difference to the cell `against`."""
    settings = by(study, f"cross_attention.{rows}", f"cross_attention.{columns}")
    ys, xs = (sorted({int(str(key[place])) for key in settings}) for place in (0, 1))
    body = [[f"{rows} = {y}", *(interval(score(settings[y, x])) for x in xs)] for y in ys]
    gaps = [
        [
            f"{rows} = {y}",
            *("" if (y, x) == against else interval(loss(settings[y, x], settings[against]), signed=True) for x in xs),
        ]
        for y in ys
    ]
    head = ["", *(f"{columns} = {x}" for x in xs)]
    return {name: table(head, body), f"{name} loss": table(head, gaps)}


def kinds(study: Study, key: Callable[[Setting], str], name: str, against: str) -> dict[str, str]:
    """One row per kind: its scores and the paired difference to one of them."""
    settings = {key(setting): setting for setting in study.settings}
    rows = [
        [
            kind,
            f"{setting.parameters:,.0f}",
            interval(score(setting)),
            "" if kind == against else interval(loss(setting, settings[against]), signed=True),
            interval(score(setting, "exact")),
            interval(score(setting, view="nearest_neighbour"), signed=True),
        ]
        for kind, setting in settings.items()
    ]
    return {
        name: table(["", "trained", "token F1", f"difference to {against}", "exact", "over nearest_neighbour"], rows)
    }


def heads(setting: Setting) -> str:
    """Heads, size and layers in words."""
    named = {name: setting.facet(f"cross_attention.{name}") for name in ("heads", "d_k", "layers")}
    return f"{named['heads']} head{'' if named['heads'] == 1 else 's'} of {named['d_k']}, layers {named['layers']}"


def encoders(study: Study) -> dict[str, str]:
    """One row per encoder and number of shots, for drawings and for German names."""
    rows: list[tuple[str, str, int, list[str]]] = []
    lines: dict[str, dict[str, dict[int, Setting]]] = {}
    for setting in study.settings:
        run = next(iter(setting.runs.values()))
        name, data = str(run.text("sweep_name")).removeprefix("encoder_"), str(run.text("data.name"))
        shots = int(str(setting.facet("fewshot.shots")))
        lines.setdefault(data, {}).setdefault(name, {})[shots] = setting
        gaps = (interval(score(setting, view=control), signed=True) for control in CONTROLS)
        copied = f"{neighbour(setting).mean:.3f}"
        cost = [f"{setting.parameters:,.0f}", f"{setting.mean('cost.seconds'):.0f}"]
        scores = [interval(score(setting)), interval(score(setting, "cider_d")), interval(score(setting, "exact"))]
        rows.append((data, name, shots, [f"`{name}`", str(shots), *scores, *gaps, copied, *cost]))
    figure, panels = pyplot.subplots(1, len(lines), figsize=(5 * len(lines), 4.2), layout="constrained", squeeze=False)
    for axes, (data, named) in zip(panels[0], sorted(lines.items()), strict=True):
        for colour, (name, by_shots) in zip(COLOURS, named.items(), strict=False):
            shots_line = sorted(by_shots)
            settings = [by_shots[shots] for shots in shots_line]
            whiskers(axes, shots_line, [score(setting) for setting in settings], colour, name)
            axes.plot(shots_line, [neighbour(setting).mean for setting in settings], ":", color=colour, linewidth=1)
        axes.set_xscale("log", base=2)
        ticks = sorted({shots for by_shots in named.values() for shots in by_shots})
        axes.set_xticks(ticks, [str(shots) for shots in ticks])
        axes.set_xlabel("shots")
        axes.set_title(f"{data}: token F1 (dotted: nearest_neighbour)", fontsize=10)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(Path(__file__).parent / "encoders.png", dpi=130)
    head = [
        "encoder",
        "shots",
        "token F1",
        "CIDEr-D",
        "exact",
        "over locked",
        "over shuffled",
        "over nearest_neighbour",
    ]
    body = [row for *_, row in sorted(rows, key=lambda row: row[:3])]
    return {"encoders": table([*head, "nearest_neighbour", "trained", "seconds"], body)}


def control(setting: Setting, name: str, metric: str = METRIC) -> Estimate:
    """What a control scores."""
    return one([run.number(f"controls.{name}.{metric}") or 0.0 for run in setting.runs.values()])


def neighbour(setting: Setting) -> Estimate:
    """Token F1 of copying the name of the nearest support input."""
    return control(setting, "nearest_neighbour")


def remedies(study: Study) -> dict[str, str]:
    """One row per setting that was tried, on the validation split."""
    rows = []
    for setting in study.settings:
        run = next(iter(setting.runs.values()))
        choices = [word for word in run.overrides if word.startswith(("encoder", "pretrain_", "stages.", "finetune."))]
        views = [interval(score(setting, view=view), signed=view != "score") for view in ("score", *CONTROLS)]
        rows.append([f"`{' '.join(choices)}`", *views, f"{neighbour(setting).mean:.3f}"])
    head = ["", "token F1", "over locked", "over shuffled", "over nearest_neighbour", "nearest_neighbour"]
    return {"remedies": table(head, sorted(rows))}


def steps(study: Study) -> dict[str, str]:
    """One row per number of shots and one column per number of steps; the paired difference to the default number."""
    found = {
        (int(str(shots)), int(str(overrides).removeprefix("finetune.steps="))): setting
        for (shots, overrides), setting in by(study, "fewshot.shots", "overrides").items()
    }
    rows, columns = sorted({shots for shots, _ in found}), sorted({count for _, count in found})
    others = [count for count in columns if count != STEPS]
    scores = [[str(shots), *(interval(score(found[shots, count])) for count in columns)] for shots in rows]
    gaps = [
        [str(shots), *(interval(loss(found[shots, count], found[shots, STEPS]), signed=True) for count in others)]
        for shots in rows
    ]
    seen = [
        [str(shots), *(interval(score(found[shots, count], view="shuffled"), signed=True) for count in columns)]
        for shots in rows
    ]
    return {
        "steps": table(["shots", *(f"{count:,} steps" for count in columns)], scores),
        "steps loss": table(["shots", *(f"{count:,} steps" for count in others)], gaps),
        "steps seen": table(["shots", *(f"{count:,} steps" for count in columns)], seen),
    }


def decoders(study: Study) -> dict[str, str]:
    """One row per pretrained decoder and one column per dimension; and how far decoders and seeds lie apart."""
    found = {
        (str(overrides).removeprefix("pretrain.seed="), int(str(size))): setting
        for (overrides, size), setting in by(study, "overrides", "cross_attention.d_k").items()
    }
    rows, sizes = sorted({row for row, _ in found}), sorted({size for _, size in found})
    smallest, largest = sizes[0], sizes[-1]
    body = [
        [
            row,
            *(interval(score(found[row, size])) for size in sizes),
            interval(loss(found[row, smallest], found[row, largest]), signed=True),
        ]
        for row in rows
    ]
    spreads = [
        ["between decoders", *(f"{stdev(score(found[row, size]).mean for row in rows):.3f}" for size in sizes)],
        [
            "between seeds",
            *(f"{fmean(stdev(found[row, size].values(METRIC).values()) for row in rows):.3f}" for size in sizes),
        ],
    ]
    head = [f"d = {size}" for size in sizes]
    return {
        "decoders": table(["pretrain.seed", *head, f"d = {smallest} less d = {largest}"], body),
        "decoders spread": table(["standard deviation", *head], spreads),
    }


def optimizers(study: Study) -> dict[str, str]:
    """One row per number of shots and sizes of cross-attention: AdamW, Muon and their paired difference."""
    settings = by(study, "cross_attention.d_k", "cross_attention.d_v", "fewshot.shots", "overrides")
    found = {(key[:3], "experiment=adamw" in str(key[3]).split()): setting for key, setting in settings.items()}
    rows = []
    for d_k, d_v, shots in sorted({key for key, _ in found}, key=str):
        adamw, muon = found[(d_k, d_v, shots), True], found[(d_k, d_v, shots), False]
        gap = interval(loss(muon, adamw), signed=True)
        exact = interval(loss(muon, adamw, "exact"), signed=True)
        rows.append([f"{d_k}", f"{d_v}", f"{shots}", interval(score(adamw)), interval(score(muon)), gap, exact])
    rows.sort(key=lambda row: (int(row[1]), int(row[2])))
    head = ["d_k", "d_v", "shots", "AdamW, 1,200 steps", "Muon, 400 steps", "difference", "difference in exact names"]
    return {"optimizers": table(head, rows)}


RIVAL = ("exact", "cider_d", "chrf")  # metrics by which copying the neighbour is often ahead
LANGUAGE_MODELS = {  # sweep: the decoder in words
    "language_small_unread": "small, which has not read the names",
    "language_small": "small, as it is by default",
    "language": "SmolLM2-135M",
    "language_adapted": "SmolLM2-135M, adapted",
}
COMPARED = (  # sweeps whose decoders are compared, and in words
    ("language_adapted", "language", "SmolLM2 adapted, less not adapted"),
    ("language", "language_small_unread", "SmolLM2, less the small decoder that has not read the names either"),
    ("language_adapted", "language_small", "SmolLM2 adapted, less the small decoder as it is by default"),
)


def language_models(study: Study) -> dict[str, str]:
    """For each split and number of shots, one row per decoder: its scores, and how far it is ahead of the controls."""
    found: dict[tuple[str, int], dict[str, Setting]] = {}
    for setting in study.settings:
        run = next(iter(setting.runs.values()))
        split = next(word for word in run.overrides if word.startswith("data.split=")).removeprefix("data.split=")
        shots = int(str(setting.facet("fewshot.shots")))
        found.setdefault((split, shots), {})[run.text("sweep_name")] = setting
    rows, ahead, paired = [], [], []
    shown = ("token_f1", "exact", "cider_d", "chrf")
    for (split, shots), by_sweep in sorted(found.items()):
        for first, second, words in COMPARED:
            if first in by_sweep and second in by_sweep:
                gaps = (interval(loss(by_sweep[first], by_sweep[second], name), signed=True) for name in shown)
                paired.append([split, str(shots), words, *gaps])
        for sweep, decoder in LANGUAGE_MODELS.items():
            if sweep not in by_sweep:
                continue
            setting, at = by_sweep[sweep], [split, str(shots), decoder]
            rows.append([*at, *(interval(score(setting, name)) for name in shown)])
            gaps = (interval(score(setting, view=control), signed=True) for control in ("prior", *CONTROLS[1:]))
            ahead.append([*at, *gaps, *(interval(score(setting, name, CONTROLS[2]), signed=True) for name in RIVAL)])
    head = ["split", "shots", "decoder"]
    over = ["over prior", "over shuffled", "over nearest_neighbour"]
    return {
        "language_models": table([*head, "token F1", "exact", "CIDEr-D", "chrF"], rows),
        "language_models paired": table([*head[:2], "", "token F1", "exact", "CIDEr-D", "chrF"], paired),
        "language_models ahead": table([*head, *over, *(f"{name} over nearest_neighbour" for name in RIVAL)], ahead),
    }


def language_tuning(study: Study) -> dict[str, str]:
    """One row per setting of finetuning that was tried with a language model, on the validation split."""
    shared, rows = ("decoder=", "data.split=", "experiment=", "evaluate.split=", "logger=", "trainer.", "name="), []
    for setting in study.settings:
        run = next(iter(setting.runs.values()))
        chosen = " ".join(word for word in run.overrides if not word.startswith(shared))
        scores = (interval(score(setting, name)) for name in ("token_f1", "exact", "cider_d", "chrf", "loss"))
        rows.append([f"`{chosen}`" if chosen else "as it is", *scores, f"{setting.mean('finetune.loss'):.3f}"])
    head = ["", "token F1", "exact", "CIDEr-D", "chrF", "loss", "training loss"]
    return {"language_tuning": table(head, sorted(rows))}


TOGETHER = {  # sweep: the plug in words
    "together_drawing": "the drawing alone",
    "together_name": "the German name alone",
    "together_both": "both, joint",
    "together_drawing_half": "the drawing alone, half the size",
    "together_name_half": "the German name alone, half the size",
    "together_sum": "both, sum of the two halves",
    "together_sum_whole": "both, sum of the two whole ones",
}


def together(study: Study) -> dict[str, str]:
    """One row per plug or pair of plugs: its size, its scores, and how far it is ahead of the better one alone."""
    found = {next(iter(setting.runs.values())).text("sweep_name"): setting for setting in study.settings}
    alone = [found[name] for name in ("together_drawing", "together_name")]
    better, rows = max(alone, key=lambda setting: score(setting).mean), []
    for sweep, what in TOGETHER.items():
        if sweep not in found:
            continue
        setting = found[sweep]
        ahead = "" if setting is better else interval(loss(setting, better), signed=True)
        scores = (interval(score(setting, name)) for name in ("token_f1", "exact", "cider_d"))
        copied = interval(score(setting, view="nearest_neighbour"), signed=True)
        rows.append([what, f"{setting.parameters:,.0f}", *scores, ahead, copied])
    head = [
        "",
        "trained",
        "token F1",
        "exact",
        "CIDEr-D",
        "token F1 over the better one alone",
        "over nearest_neighbour",
    ]
    return {"together": table(head, rows)}


# The encoders of the sweeps music_*, in the order of the tables.
AUTOENCODERS = ("vqvae", "random_vqvae", "vae", "random_vae")
MUSIC = ("mlm", "random_mlm", *AUTOENCODERS, "logmel", "whisper_tiny", "random_whisper_tiny")


def music(study: Study) -> dict[str, str]:
    """Accuracy by attribute: of captions, of copied ones, and of linear probes of the same and of all inputs.

    The runs of sweeps music_NAME_probe have no captions, and so make no settings.
    """
    found: dict[str, dict[int, list[Run]]] = {}
    for run in study.runs:
        name, words = run.text("sweep_name").removeprefix("music_"), dict(word.split("=", 1) for word in run.overrides)
        if run.status == "ok":
            found.setdefault(name, {}).setdefault(int(words["fewshot.shots"]), []).append(run)
    names = [name for each in MUSIC for name in (each, f"{each}_probe") if name in found]
    names = [name for name in names if name.removesuffix("_probe") not in found or not name.endswith("_probe")]
    attributes, ours, same = list(PROPERTIES), "attributes.caption", "probe.support"

    def line(seeds: Sequence[Run], what: str, less: str | None = None) -> list[str]:
        """For each attribute the accuracy, or the paired difference of two over the seeds."""
        cells = []
        for attribute in attributes:
            values = [run.number(f"{what}.{attribute}") or 0.0 for run in seeds]
            if less is not None:
                others = (run.number(f"{less}.{attribute}") or 0.0 for run in seeds)
                values = [value - other for value, other in zip(values, others, strict=True)]
            cells.append(interval(one(values), 2, signed=less is not None))
        return cells

    def rows(what: str, less: str | None = None) -> list[list[str]]:
        captioned = [name for name in names if what == same or not name.endswith("_probe")]
        return [
            [f"`{name.removesuffix('_probe')}`", str(shots), *line(found[name][shots], what, less)]
            for name in captioned
            for shots in sorted(found[name])
        ]

    largest = {name: found[name][max(found[name])] for name in names}
    of_all = [[f"`{name.removesuffix('_probe')}`", *line(largest[name], "probe.train")] for name in names]
    of_all.append(["the commonest value", *line(largest[names[0]], "probe.commonest")])
    head = ["encoder", "pairs", *attributes]
    return {
        "music": table(head, rows(ours)),
        "music copied": table(head, rows("attributes.nearest_neighbour")),
        "music probe": table(head, rows(same)),
        "music ahead": table(head, rows(ours, same)),
        "music ceiling": table(["encoder", *attributes], of_all),
    }


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


def rivals(study: Study) -> dict[str, str]:
    """One row per bridge and one column per number of shots: scores, and differences to cross-attention."""
    found = by(study, "bridge.kind", "fewshot.shots")
    settings = {(str(kind), int(str(count))): setting for (kind, count), setting in found.items()}
    shots = sorted({count for _, count in settings})
    kinds = [kind for kind in BRIDGES if (kind, shots[-1]) in settings]
    ours = {count: settings[BRIDGES[0], count] for count in shots}
    scores, gaps, others = [], [], []
    figure, axes = pyplot.subplots(figsize=(7, 4.6), layout="constrained")
    for number, (kind, colour) in enumerate(zip(kinds, COLOURS, strict=False)):
        line = {count: settings[kind, count] for count in shots if (kind, count) in settings}
        last = line[shots[-1]]
        at = [f"`{kind}`", f"{last.parameters or 0:,.0f}"]
        scores.append([*at, *(interval(score(line[count])) if count in line else "" for count in shots)])
        if kind != BRIDGES[0]:
            both = [(line.get(count), ours[count]) for count in shots]
            gaps.append([*at, *(interval(loss(one, other), signed=True) if one else "" for one, other in both)])
        rest = (interval(score(last, name)) for name in ("exact", "cider_d", "chrf"))
        views = (interval(score(last, view=name), signed=True) for name in ("prior", *CONTROLS[1:]))
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
    figure.savefig(STUDY / "rivals.png", dpi=130)
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


def attributes(study: Study) -> dict[str, str]:
    """How often captions get each attribute right, by dimension and number of shots, beside the controls."""
    settings = by(study, "fewshot.shots", "cross_attention.d_k")
    shots, sizes = (sorted({int(str(key[place])) for key in settings}) for place in (0, 1))
    runs = next(iter(study.settings[0].runs.values()))
    named = [name.removeprefix("attributes.caption.") for name in runs.values if name.startswith("attributes.caption.")]

    def accuracy(setting: Setting, name: str, who: str = "caption") -> Estimate:
        return one([run.number(f"attributes.{who}.{name}") or 0.0 for run in setting.runs.values()])

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharey=True)
    for colour, name in zip(COLOURS, named, strict=False):
        for axes, xs, cells in (
            (panels[0], shots, [settings[count, sizes[-1]] for count in shots]),
            (panels[1], sizes, [settings[shots[-1], size] for size in sizes]),
        ):
            whiskers(axes, xs, [accuracy(cell, name) for cell in cells], colour, name)
            copied = [accuracy(cell, name, "nearest_neighbour").mean for cell in cells]
            axes.plot(xs, copied, ":", color=colour, linewidth=1)
            axes.set_xscale("log", base=2)
            axes.set_xticks(xs, [f"{x:,}" for x in xs])
    panels[0].set_xlabel(f"pairs, d = {sizes[-1]}")
    panels[1].set_xlabel(f"d = d_q = d_k = d_v per head, {shots[-1]:,} pairs")
    panels[0].set_title("share of captions that get it right (dotted: nearest_neighbour)", fontsize=10)
    panels[0].legend(frameon=False)
    figure.savefig(STUDY / "attributes.png", dpi=130)
    rows = [
        [f"{count:,}", str(size), *(interval(accuracy(settings[count, size], name)) for name in named)]
        for count in shots
        for size in sizes
    ]
    last = settings[shots[-1], sizes[-1]]
    rows += [
        [f"{shots[-1]:,}", f"control `{who}`", *(f"{accuracy(last, name, who).mean:.3f}" for name in named)]
        for who in ("nearest_neighbour", "prior", "shuffled")
    ]
    return {"attributes": table(["pairs", "d", *named], rows)}


def reached(study: Study) -> dict[str, str]:
    """One row per number of shots: scores, and those of the controls that come nearest."""
    rows = []
    for (shots,), setting in sorted(by(study, "fewshot.shots").items(), key=lambda item: int(str(item[0][0]))):
        row = [f"{int(str(shots)):,}", interval(score(setting)), f"{control(setting, 'prior').mean:.3f}",
               f"{control(setting, 'nearest_neighbour').mean:.3f}"]  # fmt: skip
        for metric, digits in (("exact", 3), ("cider_d", 2)):
            row.append(f"{score(setting, metric).mean:.{digits}f}")
            row.append(f"{control(setting, 'nearest_neighbour', metric).mean:.{digits}f}")
        rows.append(row)
    head = ["shots", "token F1", "`prior`", "`nearest_neighbour`", "exact", "`nearest_neighbour`", "CIDEr-D"]
    return {"reached": table([*head, "`nearest_neighbour`"], rows)}


RESULTS = {
    "how_low.md": "results.csv",
    "README.md": "docs/results.csv",
}  # where the CSV file is not named after the page
Part = Callable[[Study], Mapping[str, str]]
# The sweeps behind each group of places, and the function that fills it.
PARTS: dict[str, tuple[str, Part]] = {
    "reached": ("how_well", reached),
    "tied": ("tied", tied),
    "key_value": ("key_value", lambda study: grid(study, "d_k", "d_v", "key_value", (8, 32))),
    "bilinear": ("bilinear", lambda study: grid(study, "d_q", "d_k", "bilinear", (16, 16))),
    "unlock": (
        "unlock",
        lambda study: kinds(study, lambda s: str(s.facet("cross_attention.unlock")), "unlock", "zero_output"),
    ),
    "heads": ("heads*", lambda study: kinds(study, heads, "heads", "8 heads of 8, layers all")),
    "encoders": ("encoder_*", encoders),
    "remedies": ("screen", remedies),
    "steps": ("steps", steps),
    "decoders": ("decoders", decoders),
    "optimizers": ("optimizers_*", optimizers),
    "attributes": ("attributes", attributes),
    "rivals": ("rivals_drawings", rivals),
    "rivals_tuning": ("rivals_tuning", rivals_tuning),
    "rivals_language": ("smollm2_tuning", lambda study: rivals_tuning(study, "rivals_language")),
    "language_models": ("language*", language_models),
    "language_tuning": ("tuning_language", language_tuning),
    "together": ("together_*", together),
    "music": ("music_*", music),
}


def read_csv(path: Path) -> list[Run]:
    """The runs of a CSV file that `main` has written."""
    runs = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            values: dict[str, Scalar] = {}
            stages: dict[str, dict[str, Scalar]] = {}
            for name, text in row.items():
                if name.startswith("stages."):
                    _, stage, field = name.split(".")
                    stages.setdefault(stage, {})[field] = text if field == "key" else value(text)
                elif name not in ("folder", "overrides"):
                    values[name] = value(text)
            made: list[Any] = [{"name": name, **fields} for name, fields in stages.items() if fields["key"]]
            overrides = tuple(shlex.split(str(row["overrides"])))
            runs.append(Run(Path(row["folder"]), row["folder"], values, tuple(Stage(**one) for one in made), overrides))
    return runs


def value(text: str) -> Scalar:
    """What a cell of a CSV file stands for."""
    if text in ("", "true", "false"):
        return {"true": True, "false": False}.get(text)
    try:
        number = float(text)
    except ValueError:
        return text
    return int(text) if text.lstrip("-").isdecimal() else number


def commit() -> str:
    """The commit that is checked out."""
    asked = ["git", "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(asked, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout.strip()


def main(page: Path, sweeps: Path) -> None:
    """Write the page's tables, its figures and, from sweeps, its CSV file.

    Tables whose sweeps are not among them come from that file again.
    """
    text = page.read_text(encoding="utf-8")
    everything: list[Run] = []
    results = RESULTS.get(page.name, page.with_suffix(".csv").name)
    kept = sweeps if sweeps.is_file() else page.parent / results
    for name in [name for name in names(text) if name in PARTS]:
        folders, part = PARTS[name]
        found = [] if sweeps.is_file() else sorted(sweeps.glob(folders))
        origin = f"{results}, commit {commit()}" if found else None
        before = read_csv(kept) if not found else []
        runs = read(found).runs if found else [run for run in before if fnmatch(run.label.partition("/")[0], folders)]
        everything += runs
        text = fill(text, part(Study(runs)), str(page), origin)
    page.write_text(text, encoding="utf-8")
    if not sweeps.is_file():
        (page.parent / results).write_text(results_csv(everything), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
