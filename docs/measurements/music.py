"""docs/music.md and docs/data.md: what is read off music, attribute by attribute, and off fiddle tunes."""

from __future__ import annotations

from collections.abc import Sequence

from lockdec.data.composing import PROPERTIES
from lockdec.report.headline import interval
from lockdec.report.results import Run
from lockdec.report.study import Study
from measurements.estimates import CONTROLS, one, score, table

# The encoders of the sweeps music_*, in the order of the tables.
AUTOENCODERS = ("vqvae", "random_vqvae", "vae", "random_vae")
MUSIC = ("mlm", "random_mlm", *AUTOENCODERS, "logmel", "whisper_tiny", "random_whisper_tiny")
PAIRS = (("vae", "random_vae"), ("whisper_tiny", "random_whisper_tiny"))  # with captions of both


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

    def gaps(seeds: Sequence[Run], others: Sequence[Run]) -> list[str]:
        """Token F1 and the accuracies less those of other runs, paired by seed."""
        other = {run.number("seed"): run for run in others}
        cells = []
        for measure in ("metrics.token_f1", *(f"{ours}.{attribute}" for attribute in attributes)):
            pairs = [(run.number(measure), other[run.number("seed")].number(measure)) for run in seeds]
            cells.append(interval(one([(mine or 0.0) - (theirs or 0.0) for mine, theirs in pairs]), 2, signed=True))
        return cells

    pairs = [
        [f"`{name}` less `{less}`", str(shots), *gaps(found[name][shots], found[less][shots])]
        for name, less in PAIRS
        for shots in sorted(found[name])
    ]
    largest = {name: found[name][max(found[name])] for name in names}
    of_all = [[f"`{name.removesuffix('_probe')}`", *line(largest[name], "probe.train")] for name in names]
    of_all.append(["the commonest value", *line(largest[names[0]], "probe.commonest")])
    head = ["encoder", "pairs", *attributes]
    return {
        "music": table(head, rows(ours)),
        "music copied": table(head, rows("attributes.nearest_neighbour")),
        "music pairs": table(["", "pairs", "token F1", *attributes], pairs),
        "music probe": table(head, rows(same)),
        "music ahead": table(head, rows(ours, same)),
        "music ceiling": table(["encoder", *attributes], of_all),
    }


def tunes(study: Study) -> dict[str, str]:
    """docs/data.md: one row for the first bars of fiddle tunes, and one for whole tunes."""
    shown = {"tunes": "the first nine bars", "tunes_whole": "whole tunes"}
    found = {next(iter(setting.runs.values())).text("sweep_name"): setting for setting in study.settings}
    rows = [
        [
            what,
            *(interval(score(found[sweep], metric)) for metric in ("token_f1", "exact")),
            *(interval(score(found[sweep], view=control), signed=True) for control in CONTROLS),
        ]
        for sweep, what in shown.items()
        if sweep in found
    ]
    return {"tunes": table(["", "token F1", "exact", *(f"over {control}" for control in CONTROLS)], rows)}
