"""Findings in sentences that claim no more than the intervals do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from lockdec.evaluation.metrics import ONE_INPUT
from lockdec.evaluation.result import CONTROLS
from lockdec.report.over_inputs import JUDGED, OverInputs, over_inputs
from lockdec.report.results import Run
from lockdec.report.settings import DIMENSIONS, FACETS, HEADLINE_METRIC, Setting, describe, without
from lockdec.report.statistics import LEAST_SEEDS, Estimate, verdicts
from lockdec.report.study import ALL_METRICS, MARGIN, METRIC_LABELS, HowLow, Study

SILENT = ("", "cross_attention", "resampler")  # bridges that initially change nothing
SHOWN = {"above": "is better than", "below": "is worse than", "either": "is not shown to differ from"}
CHOICES = ("encoder.name", "bridge.kind", "cross_attention.unlock", "cross_attention.layers", "overrides")
MOST_NAMED = 10  # in one sentence
FEW_SEEDS = 10  # below which an interval is wide by its few seeds

Sides = Mapping[str, Mapping[str, str]]
"""By control and metric: the side of the control on which the captioner lies (`above`, `below`, `either`)."""


def number(value: float | None, digits: int = 3, signed: bool = False) -> str:
    """A number as text: `0.643`, `+0.042`, `2,260,992`, with a true minus sign; a dash for None."""
    if value is None:
        return "\u2013"
    text = f"{value:{'+' if signed else ''},.{digits}f}"
    return text.replace("-", "\u2212")


def interval(estimate: Estimate | None, digits: int = 3, signed: bool = False) -> str:
    """`0.643 [0.621, 0.660]`; only the mean where there is no interval."""
    if estimate is None:
        return "\u2013"
    mean = number(estimate.mean, digits, signed)
    if estimate.low is None:
        return mean
    return f"{mean} [{number(estimate.low, digits, signed)}, {number(estimate.high, digits, signed)}]"


def seeds(n: int) -> str:
    """The number of seeds, and whether they give an interval."""
    few = ", no interval" if n < LEAST_SEEDS else ""
    return f"{n} seed{'s' if n != 1 else ''}{few}"


def of_study(study: Study) -> list[str]:
    """The findings of a sweep: how low the dimension may go, the best setting, and what it is worth."""
    main = {line.axis.name for line in study.main_lines}
    findings = [finding for finding in study.how_low if finding.line.axis.name in main]
    names, _ = study.distinguish([finding.line.context for finding in findings])
    named = list(zip(findings, names, strict=True))
    sentences = [_how_low(finding, name, study) for finding, name in named if finding.smallest is not None]
    if study.best is not None:
        sentences += [_best(study, study.best), *_best_over_metrics(study, study.best)]
        sentences += [*_best_over_choices(study, study.best), *_against_controls(study)]
    sentences += [_how_low(finding, name, study) for finding, name in named if finding.smallest is None]
    fewest = min((s.n for setting in study.settings if (s := study.estimate(setting))), default=LEAST_SEEDS)
    if fewest < LEAST_SEEDS:
        sentences.append("Settings with fewer than three seeds have no interval, and nothing is claimed about them.")
    elif fewest < FEW_SEEDS:
        sentences.append(
            f"Some settings have only {fewest} seeds: their intervals cover as often as others and are wide, so what "
            "is not shown may yet be true. More seeds narrow them."
        )
    return sentences


def of_run(run: Run, inputs: OverInputs) -> list[str]:
    """The findings of one run: how it compares with each control over all metrics first, then in numbers.

    Args:
        inputs: the estimates over its inputs.
    """
    sentences = _over_metrics("The captioner", run, inputs)
    score = run.number("metrics.token_f1")
    if score is not None:
        gaps = [
            f"{interval(estimate, signed=True) if estimate else number(score - value, signed=True)} over {control}"
            for control in CONTROLS
            if (value := run.number(f"controls.{control}.token_f1")) is not None
            for estimate in [inputs.gaps.get(control, {}).get(HEADLINE_METRIC)]
        ]
        split = run.text("data.evaluated") or "test"
        split_name = {"val": "validation"}.get(split, split)
        shots, count = run.text("fewshot.shots"), run.text(f"data.{split}")
        own = inputs.scores.get(HEADLINE_METRIC)
        sentences.append(
            f"Token F1 is {interval(own) if own else number(score)} on {count or 'the'} {split_name} inputs, with "
            f"{shots or 'the'} shots" + (f": {', '.join(gaps)}." if gaps else ".")
        )
        if count == "1":
            sentences.append(f"{ONE_INPUT}.")
    sizes = [f"d_{name} {run.text(f'cross_attention.d_{name}')}" for name in "qkv"]
    if run.text("cross_attention.d_k"):
        trained = run.number("parameters.trainable") or run.number("cross_attention.parameters")
        counted = f": {trained:,.0f} trained parameters." if trained else "."
        sentences.append(f"Cross-attention has {run.text('cross_attention.heads')} heads, {', '.join(sizes)}{counted}")
    sentences.append(
        "This is one run with one seed. Brackets hold 95 % intervals over the inputs, and what is called better or "
        "worse is so after correction for the number of metrics. Other seeds would differ as well."
        if inputs.scores
        else "This is one run with one seed, so there is no interval: small differences may be noise."
    )
    return sentences


def _over_metrics(who: str, run: Run, inputs: OverInputs) -> list[str]:
    """How a run compares with each of its controls, on all metrics that both have."""
    bare: dict[str, dict[str, str]] = {}
    for control in CONTROLS:
        for metric in JUDGED:
            own, other = run.number(f"metrics.{metric}"), run.number(f"controls.{control}.{metric}")
            if control not in inputs.verdicts and own is not None and other is not None:
                side = "above" if own > other else "below" if own < other else "either"
                bare.setdefault(control, {})[metric] = side
    shown = _compared(who, inputs.verdicts, SHOWN)
    counted = _compared(
        who,
        {control: sides for control, sides in bare.items() if len(sides) > 1},
        {"above": "scores higher than", "below": "scores lower than", "either": "scores the same as"},
    )
    return shown + [sentence.removesuffix(".") + ", without an interval." for sentence in counted]


def _compared(who: str, sides: Sides, words: Mapping[str, str]) -> list[str]:
    """A sentence for all controls that turned out alike: with which of them it compares how, and on which metrics."""
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for control, by_metric in sides.items():
        outcome = tuple((metric, by_metric[metric]) for metric in ALL_METRICS if metric in by_metric)
        alike.setdefault(outcome, []).append(control)
    sentences = []
    for outcome, controls in alike.items():
        parts: list[str] = []
        for side, word in words.items():
            metrics = [METRIC_LABELS[metric] for metric, found in outcome if found == side]
            if metrics:
                where = f"all {len(metrics)} metrics" if len(metrics) == len(outcome) > 1 else _listed(metrics)
                parts.append(
                    f"{word} {_listed(controls) if not parts else 'it' if len(controls) == 1 else 'them'} on {where}"
                )
        sentences.append(f"{who} {_listed(parts)}.")
    return sentences


def _listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def checks(run: Run) -> list[tuple[str, bool | None]]:
    """What must hold in every run, and whether it did; None where the run did not check it."""
    delta = run.number("unlock.max_abs_logit_delta")
    silent = run.text("cross_attention.unlock") != "plain" and run.text("bridge.kind") in SILENT
    encoder, decoder = run.values.get("frozen.encoder_ok"), run.values.get("frozen.decoder_ok")
    return [
        ("Unlocking left the logits unchanged", None if delta is None or not silent else delta == 0.0),
        ("The frozen encoder is unchanged", encoder if isinstance(encoder, bool) else None),
        ("The frozen decoder is unchanged", decoder if isinstance(decoder, bool) else None),
    ]


def warnings(runs: Sequence[Run]) -> list[str]:
    """Checks that failed, counted over the runs, with the first of them named."""
    failed: dict[str, list[str]] = {}
    for run in runs:
        for name, held in checks(run):
            if held is False:
                failed.setdefault(name, []).append(run.label)
    return [
        f"\u201c{name}\u201d does not hold in {len(labels)} of {len(runs)} runs (first: {labels[0]})."
        for name, labels in failed.items()
    ]


def _how_low(finding: HowLow, context: str, study: Study) -> str:
    axis, full = finding.line.axis, finding.full
    where = f"With {context}, " if context else ""
    top = describe((name, value) for name, value in full.facets if name in DIMENSIONS)
    if not finding.losses or all(loss.low is None for _, loss in finding.losses):
        few = all(loss.n < LEAST_SEEDS for _, loss in finding.losses)
        why = f"fewer than three seeds are shared with {top}" if few else f"all seeds differ equally from {top}"
        return _sentence(f"{where}how low {axis.name} may go is unknown: {why}.")
    if finding.smallest is None:
        setting, loss = finding.losses[-1]
        return _sentence(
            f"{where}no smaller {axis.name} is shown to be enough: the next below full size ({top}) is {axis.name} = "
            f"{axis.value(setting):g}, {interval(loss, signed=True)} token F1 ({seeds(loss.n)}), "
            f"not shown to be within {MARGIN}."
        )
    loss = dict(finding.losses)[finding.smallest]
    also = ""
    control = "prior" if "prior" in study.controls else "locked"
    if (gap := study.estimate(full, view=control)) is not None and gap.verdict != "above":
        also += f" Full size itself is not shown to beat {control}, so being close to it means little."
    return (
        f"{where}{axis.name} = {axis.value(finding.smallest):g} is enough: token F1 "
        f"{number(_mean(study, finding.smallest))}, {interval(loss, signed=True)} to full size ({top}), "
        f"paired over {seeds(loss.n)}{_parameters(finding.smallest, full)}.{also}"
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _parameters(small: Setting, full: Setting) -> str:
    if not small.parameters or not full.parameters:
        return ""
    return f"; {small.parameters:,.0f} trained parameters instead of {full.parameters:,.0f}"


def _best(study: Study, best: Setting) -> str:
    score = study.estimate(best)
    gaps = [
        f"{interval(gap, signed=True)} over {control}"
        for control in CONTROLS
        if (gap := study.estimate(best, view=control)) is not None
    ]
    name = study.label(best) or "The only setting"
    held = seeds(score.n) if score else ""
    split = best.facet("data.evaluated") or "test"
    picked = f" It was picked by these scores on the {split} split, so they flatter it." * (len(study.settings) > 1)
    return (
        f"{name} has the highest mean token F1, {interval(score)} ({held}): "
        f"{', '.join(gaps) or 'it was compared with no control'}.{picked}"
    )


def _best_over_metrics(study: Study, best: Setting) -> list[str]:
    """How the best setting compares with each control on all metrics: over its seeds, or else over its inputs.

    It is the best because chance was on its side, too, so the verdicts are corrected for all settings that it was
    picked from.
    """
    sides: dict[str, Mapping[str, str]] = {}
    for control in CONTROLS:
        gaps = {
            (setting, metric): gap
            for setting in study.settings
            for metric in JUDGED
            if (gap := study.estimate(setting, metric, control)) is not None
        }
        found = dict(zip(gaps, verdicts(list(gaps.values())), strict=True))
        if known := {
            metric: side for (setting, metric), side in found.items() if setting is best and side != "unknown"
        }:
            sides[control] = known
    over, several = "over seeds, corrected for the number of metrics", len(study.settings) > 1
    if sides:
        over += " and settings" * several
    else:
        sides = dict(over_inputs(next(iter(best.runs.values()))).verdicts)
        over = "over the inputs of its first seed, corrected for the number of metrics"
        over += " and not for the choice of this setting" * several
    return [f"{sentence.removesuffix('.')} ({over})." for sentence in _compared("It", sides, SHOWN)]


def _best_over_choices(study: Study, best: Setting) -> list[str]:
    """How the best setting compares with those that differ from it in one choice: of encoder, bridge, ..."""
    sentences = []
    for facet in (name for name in CHOICES if name in study.varying):
        rest = without(best.facets, (facet,))
        alike = [setting for setting in study.settings if without(setting.facets, (facet,)) == rest]
        pairs = [pair for pair in study.comparisons if pair.first in alike and pair.second in alike]
        found: dict[str, list[str]] = {}
        for pair, side in zip(pairs, verdicts([pair.difference for pair in pairs]), strict=True):
            if best is pair.second:
                side = {"above": "below", "below": "above"}.get(side, side)
            other = pair.second if best is pair.first else pair.first
            if best in (pair.first, pair.second):
                found.setdefault(side, []).append(describe([(facet, other.facet(facet))]))
        parts = [
            f"{word} {_listed(names) if len(names) <= MOST_NAMED else f'{len(names)} others'}"
            for side, word in SHOWN.items()
            if (names := found.get(side))
        ]
        if parts:
            corrected = f", corrected for {len(pairs)} pairs" if len(pairs) > 1 else ""
            sentences.append(
                f"By {FACETS[facet]}, all else equal, it {_listed(parts)} (token F1, paired over seeds{corrected})."
            )
    return sentences


def _against_controls(study: Study) -> list[str]:
    alike: dict[str, list[str]] = {}
    for control in CONTROLS:
        gaps = [gap for s in study.settings if (gap := study.estimate(s, view=control)) is not None]
        counted = Counter(verdicts(gaps))
        judged = len(gaps) - counted["unknown"]
        if judged:
            sides = {"above": "above", "below": "below", "either": "undecided"}
            parts = [f"{counted[side]} {words}" for side, words in sides.items() if counted[side]]
            corrected = f" (corrected for {judged} comparisons)" if judged > 1 else ""
            alike.setdefault(f"{', '.join(parts)}{corrected}", []).append(control)
    return [
        f"Settings compared with {_listed(controls)} by token F1: {outcome}." for outcome, controls in alike.items()
    ]


def _mean(study: Study, setting: Setting) -> float | None:
    estimate = study.estimate(setting)
    return estimate.mean if estimate else None
