"""docs/encoders.md: one encoder beside the other."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import pyplot

from lockdec.report.headline import interval
from lockdec.report.results import Run
from lockdec.report.settings import Setting
from lockdec.report.study import Study
from measurements.estimates import COLOURS, CONTROLS, DOCS, difference, neighbour, one, score, table, whiskers

PAIRS = (  # each with what it is compared with
    ("efficientnet_lite0", "random_efficientnet_lite0"),
    ("vae", "random_vae"),
    ("random_efficientnet_lite0", "vae"),
    ("vae", "vqvae"),
    ("mlm", "random_mlm"),
    ("minilm", "mlm"),
    ("minilm", "random_mlm"),
)

OF_ENCODER = ("encoder.", "pretrain_", "stages.")  # options that make or read an encoder
AS_IT_IS = ("encoder.layers=[0,3]", "stages.attach.normalise=standardise")  # what they are where nothing is typed
MORE_TEXTS = "stages.pretrain_encoder.sources="
MASKING = ("pretrain_encoder.masked=", "pretrain_encoder.whole_words=")


def encoders(study: Study) -> dict[str, str]:
    """One row per encoder and number of shots, for drawings and for German names; and some in pairs, seed by seed."""
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
    figure.savefig(DOCS / "encoders.png", dpi=130)
    head = ["encoder", "shots", "token F1", "CIDEr-D", "exact", "over prior", "over shuffled", "over nearest_neighbour"]
    body = [row for *_, row in sorted(rows, key=lambda row: row[:3])]
    named = {name: by_shots for by_name in lines.values() for name, by_shots in by_name.items()}
    counts = sorted({count for by_shots in named.values() for count in by_shots})
    pairs = [
        [f"`{name}`", f"`{less}`", *(interval(difference(named[name][n], named[less][n]), signed=True) for n in counts)]
        for name, less in PAIRS
    ]
    return {
        "encoders": table([*head, "nearest_neighbour", "trained", "seconds"], body),
        "encoders pairs": table(["encoder", "less", *(f"{count:,} shots" for count in counts)], pairs),
    }


def remedies(study: Study) -> dict[str, str]:
    """One row per setting that was tried, on the validation split."""
    rows = []
    for setting in study.settings:
        run = next(iter(setting.runs.values()))
        choices = [word for word in run.overrides if word.startswith(("encoder", "pretrain_", "stages.", "finetune."))]
        views = [interval(score(setting, view=view), signed=view != "score") for view in ("score", *CONTROLS[1:])]
        rows.append([f"`{' '.join(choices)}`", *views, f"{neighbour(setting).mean:.3f}"])
    head = ["", "token F1", "over shuffled", "over nearest_neighbour", "nearest_neighbour"]
    return {"remedies": table(head, sorted(rows))}


def mlm_remedies(study: Study) -> dict[str, str]:
    """One row per way to pretrain or read `mlm`, on the validation split, beside its random weights read alike."""
    found: dict[str, dict[str, Setting]] = {}
    for setting in study.settings:
        words = next(iter(setting.runs.values())).overrides
        encoder = next(word for word in words if word.startswith("encoder=")).removeprefix("encoder=")
        found.setdefault(_options(words), {})[encoder] = setting
    rows = []
    for options, by_encoder in found.items():
        if (trained := by_encoder.get("mlm")) is None:
            continue
        # How it is masked does not concern the random weights.
        kept = " ".join(word for word in options.split() if not word.startswith(MASKING))
        random = found[kept]["random_mlm"]
        gap = interval(difference(trained, random), signed=True)
        rows.append([f"`{options}`" if options else "as it is", interval(score(trained)), interval(score(random)), gap])
    return {"mlm_remedies": table(["", "`mlm`", "`random_mlm`", "difference"], rows)}


def whitened(study: Study) -> dict[str, str]:
    """Scores of `mlm` and of its random weights, both whitened, and their difference seed by seed."""
    return _trained_and_random(study, "whitened")


def german(study: Study) -> dict[str, str]:
    """The same of `mlm` after many German texts, not whitened."""
    return _trained_and_random(study, "german")


def _trained_and_random(study: Study, place: str) -> dict[str, str]:
    """`mlm` beside its random weights: scores, and the difference seed by seed."""
    found: dict[str, dict[int, Setting]] = {}
    for setting in study.settings:
        name = str(next(iter(setting.runs.values())).text("sweep_name")).removeprefix(f"{place}_")
        found.setdefault(name, {})[int(str(setting.facet("fewshot.shots")))] = setting
    rows = []
    for shots, trained in sorted(found["mlm"].items()):
        random = found["random_mlm"][shots]
        for metric in ("token_f1", "cider_d", "exact"):
            gap = interval(difference(trained, random, metric), signed=True)
            rows.append([f"{shots:,}", metric, interval(score(trained, metric)), interval(score(random, metric)), gap])
    return {place: table(["shots", "metric", "`mlm`", "`random_mlm`", "difference"], rows)}


def vae_remedies(study: Study) -> dict[str, str]:
    """What a probe reads off autoencoders of other sizes, trained and not, on the validation split."""
    found: dict[str, dict[str, dict[int, list[Run]]]] = {}
    for run in study.runs:
        words = dict(word.lstrip("+").split("=", 1) for word in run.overrides)
        of_encoder = found.setdefault(_options(run.overrides), {}).setdefault(words["encoder"], {})
        of_encoder.setdefault(int(words["fewshot.shots"]), []).append(run)
    rows = []
    for options, by_encoder in found.items():
        for shots, runs in sorted(by_encoder["vae"].items()):
            row = [f"`{options}`" if options else "as it is", f"{shots:,}"]
            for attribute in ("person", "tone"):
                read = [
                    [run.number(f"probe.support.{attribute}") or 0.0 for run in sorted(some, key=_seed)]
                    for some in (runs, by_encoder["random_vae"][shots])
                ]
                gap = [trained - random for trained, random in zip(*read, strict=True)]
                row += [interval(one(read[0])), interval(one(read[1])), interval(one(gap), signed=True)]
            rows.append(row)
    head = [word for name in ("person", "tone") for word in (f"{name}: `vae`", "`random_vae`", "difference")]
    return {"vae_remedies": table(["", "inputs", *head], rows)}


def _options(overrides: Sequence[str]) -> str:
    """Those that say how an encoder is pretrained and read."""
    words = [word.lstrip("+") for word in overrides]
    chosen = [word for word in words if word.startswith(OF_ENCODER) and word not in AS_IT_IS]
    return " ".join("more texts" if word.startswith(MORE_TEXTS) else word for word in chosen)


def _seed(run: Run) -> float:
    return run.number("seed") or 0.0


def probes(study: Study) -> dict[str, str]:
    """What is read off drawings."""
    return _probes(study, "probes")


def names_probes(study: Study) -> dict[str, str]:
    """What is read off German names."""
    return _probes(study, "names_probes")


def german_probes(study: Study) -> dict[str, str]:
    """What is read off German names after pretraining on many German texts."""
    return _probes(study, "german_probes")


def _probes(study: Study, place: str) -> dict[str, str]:
    """What a linear probe reads off the mean state of an input: a row per encoder and number of inputs it learns from.

    And, for each encoder, how far it is ahead of its random weights, paired by seed.
    """
    found: dict[str, dict[int, list[Run]]] = {}
    for run in study.runs:
        if run.status == "ok":
            words = dict(word.split("=", 1) for word in run.overrides)
            name, shots = run.text("sweep_name").rpartition("probe_")[2], int(words["fewshot.shots"])
            found.setdefault(name, {}).setdefault(shots, []).append(run)
    first = next(iter(next(iter(found.values())).values()))[0]
    prefix = "probe.commonest."
    told = [name for name in first.values if name.startswith(prefix) and first.number(name) is not None]
    attributes = [name.removeprefix(prefix) for name in told]

    def accuracies(runs: Sequence[Run], what: str) -> list[list[float]]:
        return [[run.number(f"{what}.{name}") or 0.0 for run in runs] for name in attributes]

    rows, ahead = [], []
    for name, by_shots in sorted(found.items()):
        for shots, runs in sorted(by_shots.items()):
            rows.append([f"`{name}`", f"{shots:,}", *(interval(one(v)) for v in accuracies(runs, "probe.support"))])
        runs = by_shots[max(by_shots)]
        rows.append([f"`{name}`", "all", *(interval(one(values)) for values in accuracies(runs, "probe.train"))])
        if (control := found.get(f"random_{name}")) is not None:
            for shots, runs in sorted(by_shots.items()):
                pairs = zip(accuracies(runs, "probe.support"), accuracies(control[shots], "probe.support"), strict=True)
                gaps = ([a - b for a, b in zip(*both, strict=True)] for both in pairs)
                cells = (interval(one(gap), signed=True) for gap in gaps)
                ahead.append([f"`{name}` less `random_{name}`", f"{shots:,}", *cells])
    rows.append(
        ["the commonest value", "", *(interval(one(values)) for values in accuracies([first], "probe.commonest"))]
    )
    head = ["encoder", "inputs", *attributes]
    return {place: table(head, rows), f"{place} ahead": table(["", *head[1:]], ahead)}
