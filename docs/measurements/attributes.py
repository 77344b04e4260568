"""How often captions get each attribute right, by dimension and number of pairs."""

from __future__ import annotations

from matplotlib import pyplot

from lockdec.report.headline import interval
from lockdec.report.settings import Setting
from lockdec.report.statistics import Estimate
from lockdec.report.study import Study
from measurements.estimates import COLOURS, DOCS, by, one, table, whiskers


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
    panels[0].set_ylim(-0.03, 1.03)
    panels[0].legend(frameon=False)
    figure.savefig(DOCS / "study" / "attributes.png", dpi=130)
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
