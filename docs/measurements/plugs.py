"""docs/plugs.md: a drawing and its German name, and a drawing seen by two encoders, alone and together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lockdec.report.headline import interval
from lockdec.report.settings import Setting
from lockdec.report.study import Study
from measurements.estimates import difference, score, table

TOGETHER = {  # sweep: the plug in words
    "together_drawing": "the drawing alone",
    "together_name": "the German name alone",
    "together_both": "both, joint",
    "together_drawing_half": "the drawing alone, half the size",
    "together_name_half": "the German name alone, half the size",
    "together_sum": "both, sum of the two halves",
    "together_sum_whole": "both, sum of the two whole ones",
}
VIEWS = {
    "together_drawing": "EfficientNet-Lite0 alone",
    "together_vae": "the VAE alone",
    "together_views": "both, joint",
}


def together(study: Study) -> dict[str, str]:
    """The two tables of plugs that work together."""
    found = {next(iter(setting.runs.values())).text("sweep_name"): setting for setting in study.settings}
    return {
        "together": beside(found, TOGETHER, alone=("together_drawing", "together_name")),
        "together views": beside(found, VIEWS, alone=("together_drawing", "together_vae")),
    }


def beside(found: Mapping[str, Setting], shown: Mapping[str, str], alone: Sequence[str]) -> str:
    """One row per plug or pair of plugs: its size, its scores, and how far it is ahead of the better one alone."""
    better, rows = max((found[name] for name in alone), key=lambda setting: score(setting).mean), []
    for sweep, what in shown.items():
        setting = found[sweep]
        ahead = "" if setting is better else interval(difference(setting, better), signed=True)
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
    return table(head, rows)
