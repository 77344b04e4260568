"""docs/language_models.md: SmolLM2 behind the lock, beside the small decoder."""

from __future__ import annotations

from statistics import fmean

from matplotlib import pyplot

from lockdec.report.headline import interval
from lockdec.report.settings import Setting
from lockdec.report.study import Study
from measurements.estimates import COLOURS, CONTROLS, DOCS, by, difference, score, table

RIVAL = ("exact", "cider_d", "chrf")  # metrics by which copying the neighbour is often ahead
LANGUAGE_MODELS = {  # sweep: the decoder in words
    "language_small_unread": "small, which has not read the names",
    "language_small": "small, as it is by default",
    "language": "SmolLM2-135M",
    "language_bfloat": "SmolLM2-135M, in bfloat16",
    "language_adapted": "SmolLM2-135M, adapted",
    "language_adapted_long": "SmolLM2-135M, adapted, 300 steps",
    "language_adapted_more": "SmolLM2-135M, adapted more, 300 steps",
    "language_more_bfloat": "SmolLM2-135M, adapted more, 300 steps, in bfloat16",
    "language_more_bfloat_mbr": "SmolLM2-135M, adapted more, 300 steps, in bfloat16, mbr",
    "language_small_mbr": "small, as it is by default, mbr",
}
COMPARED = (  # sweeps whose decoders are compared, and in words
    ("language_bfloat", "language", "SmolLM2 in bfloat16, less in float32"),
    ("language_adapted", "language", "SmolLM2 adapted, less not adapted"),
    ("language", "language_small_unread", "SmolLM2, less the small decoder that has not read the names either"),
    ("language", "language_small", "SmolLM2, less the small decoder as it is by default"),
    ("language_bfloat", "language_small", "SmolLM2 in bfloat16, less the small decoder as it is by default"),
    ("language_adapted", "language_small", "SmolLM2 adapted, less the small decoder as it is by default"),
    ("language_adapted_long", "language_adapted", "SmolLM2 adapted, 300 steps of finetuning less 100"),
    (
        "language_adapted_long",
        "language_small",
        "SmolLM2 adapted, 300 steps, less the small decoder as it is by default",
    ),
    ("language_adapted_more", "language_adapted_long", "SmolLM2 adapted more, less adapted, both 300 steps"),
    (
        "language_adapted_more",
        "language_small",
        "SmolLM2 adapted more, 300 steps, less the small decoder as it is by default",
    ),
    ("language_more_bfloat", "language_small", "SmolLM2 adapted more, in bfloat16, less the small decoder"),
    ("language_more_bfloat_mbr", "language_more_bfloat", "SmolLM2 adapted more, in bfloat16: mbr less greedy"),
    ("language_small_mbr", "language_small", "the small decoder: mbr less greedy"),
    (
        "language_more_bfloat_mbr",
        "language_small_mbr",
        "SmolLM2 adapted more, in bfloat16, less the small decoder, both mbr",
    ),
    (
        "language_more_bfloat_mbr",
        "language_small",
        "SmolLM2 adapted more, in bfloat16, mbr, less the small decoder, greedy",
    ),
)


def language_models(study: Study) -> dict[str, str]:
    """For each data set or split and number of shots, a row per decoder: its scores, and the gaps over the controls."""
    found: dict[tuple[str, int], dict[str, Setting]] = {}
    for setting in study.settings:
        run = next(iter(setting.runs.values()))
        typed = dict(word.partition("=")[::2] for word in run.overrides)
        split = " ".join(typed[key] for key in ("data", "data.split") if key in typed)
        shots = int(str(setting.facet("fewshot.shots")))
        found.setdefault((split, shots), {})[decoder_of(run.text("sweep_name"))] = setting
    rows, ahead, paired = [], [], []
    shown = ("token_f1", "exact", "cider_d", "chrf")
    for (split, shots), by_sweep in sorted(found.items()):
        for first, second, words in COMPARED:
            if first in by_sweep and second in by_sweep:
                gaps = (interval(difference(by_sweep[first], by_sweep[second], name), signed=True) for name in shown)
                paired.append([split, str(shots), words, *gaps])
        for sweep, decoder in LANGUAGE_MODELS.items():
            if sweep not in by_sweep:
                continue
            setting, at = by_sweep[sweep], [split, str(shots), decoder]
            rows.append([*at, *(interval(score(setting, name)) for name in shown)])
            gaps = (interval(score(setting, view=control), signed=True) for control in CONTROLS)
            ahead.append([*at, *gaps, *(interval(score(setting, name, CONTROLS[2]), signed=True) for name in RIVAL)])
    head = ["data", "shots", "decoder"]
    over = ["over prior", "over shuffled", "over nearest_neighbour"]
    return {
        "language_models": table([*head, "token F1", "exact", "CIDEr-D", "chrF"], rows),
        "language_models paired": table([*head[:2], "", "token F1", "exact", "CIDEr-D", "chrF"], paired),
        "language_models ahead": table([*head, *over, *(f"{name} over nearest_neighbour" for name in RIVAL)], ahead),
    }


def decoder_of(sweep: str) -> str:
    """The sweep of LANGUAGE_MODELS that has the same decoder as one with other numbers of pairs (`language_few`)."""
    return max((name for name in LANGUAGE_MODELS if sweep.startswith(name)), key=len)


def language_tied(study: Study) -> dict[str, str]:
    """SmolLM2's captions against the tied dimension, and what each dimension loses against the largest."""
    found = {int(str(key[0])): setting for key, setting in by(study, "cross_attention.d_k").items()}
    largest, rows = found[max(found)], []
    for size in sorted(found):
        setting = found[size]
        scores = (interval(score(setting, name)) for name in ("token_f1", "exact", "cider_d"))
        gaps = (interval(score(setting, view=control), signed=True) for control in CONTROLS)
        loss = "" if setting is largest else interval(difference(setting, largest), signed=True)
        rows.append([str(size), *scores, loss, *gaps, f"{setting.parameters:,.0f}"])
    over = ["over prior", "over shuffled", "over nearest_neighbour"]
    head = ["d", "token F1", "exact", "CIDEr-D", f"less d = {max(found)}", *over, "trained"]
    return {"language_tied": table(head, rows)}


def language_layers(study: Study) -> dict[str, str]:
    """What cross-attention in more or fewer of SmolLM2's layers gains and costs; a row each, and a picture."""
    settings = sorted(study.settings, key=lambda setting: setting.parameters or 0)
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    rows = []
    for setting in settings:
        layers = str(setting.facet("cross_attention.layers"))
        seconds = seconds_of(setting, "finetune")
        axes.scatter(seconds, score(setting).mean, color=COLOURS[0])
        axes.annotate(layers, (seconds, score(setting).mean), textcoords="offset points", xytext=(6, -3), fontsize=8)
        scores = (interval(score(setting, name)) for name in ("token_f1", "exact", "cider_d"))
        loss = f"{setting.mean('finetune.loss'):.3f}"
        rows.append([f"`{layers}`", *scores, loss, f"{setting.parameters:,.0f}", f"{seconds:.0f}"])
    axes.set_xlabel("seconds of finetuning, one thread")
    axes.set_title("token F1 by cross_attention.layers", fontsize=10)
    figure.savefig(DOCS / "layers.png", dpi=130)
    head = ["layers", "token F1", "exact", "CIDEr-D", "training loss", "trained", "seconds of finetuning"]
    return {"language_layers": table(head, rows)}


def language_cost(study: Study) -> dict[str, str]:
    """The seconds of each stage of a cell and its memory, a row for each CPU, precision and number of pairs."""
    stages, rows = ("finetune", "prior", "evaluate"), []
    for run in study.runs:
        dtype = "bfloat16" if "decoder.dtype=bfloat16" in run.overrides else "float32"
        cpu = "EPYC" if str(run.text("sweep_name")).endswith("_epyc") else "Xeon"
        made = {stage.name: (stage.made_in if stage.reused else stage.seconds) or 0.0 for stage in run.stages}
        whole, memory = run.number("cost.seconds") or 0.0, run.number("cost.peak_memory_mb") or 0.0
        seconds = (f"{made[stage]:.0f}" for stage in stages)
        rows.append([cpu, f"`{dtype}`", str(run.text("fewshot.shots")), *seconds, f"{whole:.0f}", f"{memory:,.0f}"])
    rows.sort(key=lambda row: (row[0], row[1], int(row[2])), reverse=True)
    head = ["CPU", "`decoder.dtype`", "pairs", *stages, "the whole cell", "most memory, MB"]
    return {"language_cost": table(head, rows)}


def seconds_of(setting: Setting, name: str) -> float:
    """The mean seconds that a stage took where it was made."""
    made = (stage for run in setting.runs.values() for stage in run.stages if stage.name == name)
    return fmean((stage.made_in if stage.reused else stage.seconds) or 0.0 for stage in made)


def language_tuning(study: Study) -> dict[str, str]:
    """One row per setting of finetuning that was tried with a language model, on the validation split."""
    return {"language_tuning": tried(study)}


def language_adapting(study: Study) -> dict[str, str]:
    """One row per way of adapting that was tried, and one of the small decoder, on the validation split."""
    return {"language_adapting": tried(study)}


def language_longer(study: Study) -> dict[str, str]:
    """One row per adaptation of all layers and per bridge, on the validation split, and one of the small decoder."""
    rows = []
    for setting in study.settings:
        run = next(iter(setting.runs.values()))
        typed = dict(word.partition("=")[::2] for word in run.overrides)
        steps, rate = (typed.get(f"adapt.{key}") for key in ("steps", "optimizer.learning_rate"))
        read = [f"{setting.mean('adapt.val_loss'):.3f}", f"`{setting.facet('bridge.kind')}`"] if steps else ["", ""]
        scores = (interval(score(setting, name)) for name in ("token_f1", "exact", "cider_d", "chrf", "loss"))
        rows.append([f"{int(steps):,}" if steps else "the small decoder", rate or "", *read, *scores])
    head = ["steps", "rate", "loss of unread names", "`bridge=`", "token F1", "exact", "CIDEr-D", "chrF", "loss"]
    rows.sort(key=lambda row: (not row[1], row[0].rjust(20), *row[1:4]))
    return {"language_longer": table(head, rows)}


def tried(study: Study) -> str:
    """A row for each run of one setting: what was typed, its scores, and the loss of its pairs."""
    shared = (
        "decoder=",
        "data.split=",
        "experiment=",
        "evaluate.split=",
        "logger=",
        "trainer.",
        "name=",
        "seed=",
        "pipe",
    )
    rows = []
    for setting in study.settings:
        run = next(iter(setting.runs.values()))
        chosen = " ".join(word for word in run.overrides if not word.startswith(shared))
        default = "as it is" if any(word.startswith("decoder=") for word in run.overrides) else "the small decoder"
        scores = (interval(score(setting, name)) for name in ("token_f1", "exact", "cider_d", "chrf", "loss"))
        rows.append([f"`{chosen}`" if chosen else default, *scores, f"{setting.mean('finetune.loss'):.3f}"])
    head = ["", "token F1", "exact", "CIDEr-D", "chrF", "loss", "training loss"]
    return table(head, sorted(rows))
