"""docs/study/how_low.md: quality against the sizes of cross-attention, its kinds and the decoder."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean, stdev

from matplotlib import pyplot

from lockdec.report.headline import interval
from lockdec.report.settings import Setting
from lockdec.report.study import MARGIN, Study
from measurements.estimates import (
    COLOURS,
    CONTROLS,
    DOCS,
    METRIC,
    Key,
    by,
    difference,
    neighbour,
    score,
    table,
    whiskers,
)

FULL = 32  # the largest dimension, the reference for the others


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
        gaps = [difference(setting, settings[count, FULL]) for setting in smaller]
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
    figure.savefig(DOCS / "study" / "tied.png", dpi=130)
    heads = [f"d = {size}" for size in sizes]
    return {
        "tied": table(["shots", *heads], scores),
        "tied loss": table(["shots", *(head for head, size in zip(heads, sizes, strict=True) if size != FULL)], losses),
        "tied controls": table(
            [
                "shots",
                "d",
                "over prior",
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
            *(
                "" if (y, x) == against else interval(difference(settings[y, x], settings[against]), signed=True)
                for x in xs
            ),
        ]
        for y in ys
    ]
    head = ["", *(f"{columns} = {x}" for x in xs)]
    return {name: table(head, body), f"{name} loss": table(head, gaps)}


def key_value(study: Study) -> dict[str, str]:
    """Queries and keys of one size, values of another."""
    return grid(study, "d_k", "d_v", "key_value", (8, 32))


def bilinear(study: Study) -> dict[str, str]:
    """Queries of one size, keys of another."""
    return grid(study, "d_q", "d_k", "bilinear", (16, 16))


def kinds(study: Study, key: Callable[[Setting], str], name: str, against: str) -> dict[str, str]:
    """One row per kind: its scores and the paired difference to one of them."""
    settings = {key(setting): setting for setting in study.settings}
    rows = [
        [
            kind,
            f"{setting.parameters:,.0f}",
            interval(score(setting)),
            "" if kind == against else interval(difference(setting, settings[against]), signed=True),
            interval(score(setting, "exact")),
            interval(score(setting, view="nearest_neighbour"), signed=True),
        ]
        for kind, setting in settings.items()
    ]
    return {
        name: table(["", "trained", "token F1", f"difference to {against}", "exact", "over nearest_neighbour"], rows)
    }


def unlock(study: Study) -> dict[str, str]:
    """One row per way in which cross-attention starts."""
    return kinds(study, lambda setting: str(setting.facet("cross_attention.unlock")), "unlock", "zero_output")


def heads(study: Study) -> dict[str, str]:
    """One row per number of heads and choice of layers."""

    def words(setting: Setting) -> str:
        named = {name: setting.facet(f"cross_attention.{name}") for name in ("heads", "d_k", "layers")}
        return f"{named['heads']} head{'' if named['heads'] == 1 else 's'} of {named['d_k']}, layers {named['layers']}"

    return kinds(study, words, "heads", "8 heads of 8, layers all")


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
            interval(difference(found[row, smallest], found[row, largest]), signed=True),
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


def enough(study: Study) -> dict[str, str]:
    """For each encoder, quality against the tied dimension, and the smallest that loses no more than the margin."""
    found: dict[str, dict[int, Setting]] = {}
    for setting in study.settings:
        sweep = str(next(iter(setting.runs.values())).text("sweep_name"))
        found.setdefault(sweep.removeprefix("enough_"), {})[int(str(setting.facet("cross_attention.d_k")))] = setting
    scores, losses = [], []
    for encoder, by_size in found.items():
        line = [by_size[size] for size in sorted(by_size)]
        gaps = {size: difference(by_size[size], by_size[FULL]) for size in sorted(by_size) if size != FULL}
        smallest = FULL
        for size, gap in reversed(gaps.items()):
            if gap.low is None or gap.low <= -MARGIN:
                break
            smallest = size
        scores.append(
            [f"`{encoder}`", *(interval(score(setting)) for setting in line), f"{neighbour(line[-1]).mean:.3f}"]
        )
        losses.append([f"`{encoder}`", *(interval(gap, signed=True) for gap in gaps.values()), str(smallest)])
    sizes = sorted(next(iter(found.values())))
    heads = [f"d = {size}" for size in sizes]
    return {
        "enough": table(["encoder", *heads, "nearest_neighbour"], scores),
        "enough loss": table(["encoder", *heads[:-1], "enough"], losses),
    }
