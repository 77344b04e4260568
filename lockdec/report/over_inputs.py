"""What one run is worth over its test inputs: an interval for every metric, and what is shown against each control.

A metric's interval, and that of its gap over a control, come from scoring the captions without each of the inputs in
turn (`metrics.score_without_each`), which holds for corpus metrics as for means. Where many metrics are compared with
one control, the verdicts are corrected for their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lockdec.evaluation.metrics import METRICS, References, score, score_without_each
from lockdec.evaluation.result import CONTROLS
from lockdec.report.results import Run, read_captions
from lockdec.report.statistics import LEAST_ITEMS, Estimate, over_items, verdicts

JUDGED = tuple(name for name in METRICS if name != "distinct")
"""The metrics that say how good captions are; `distinct` is of interest, but a good caption may be a repeated one."""

SAME_SCORE = 1e-6


@dataclass(frozen=True)
class OverInputs:
    """Estimates over the inputs of a run, left out where it has kept no captions that give its scores.

    Attributes:
        scores: by metric.
        gaps: by control and metric: the captioner's score minus the control's, input by input.
        verdicts: by control and metric, which side of 0 the gap is shown to lie on (`above`, `below`, `either`),
            corrected for the number of metrics.
    """

    scores: Mapping[str, Estimate] = field(default_factory=dict)
    gaps: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    verdicts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def over_inputs(run: Run) -> OverInputs:
    """Estimates from the captions that a run has kept, those of the captioner and those of its controls.

    A metric is left out where the captioner's captions do not give the score in result.json, as an earlier release may
    have measured otherwise; a control, where its captions do not give all of these scores: it may be an average over
    more captions than are kept.
    """
    rows, _ = read_captions(run)
    if len(rows) < LEAST_ITEMS or not all(row.references and "caption" in row.captions for row in rows):
        return OverInputs()
    references = References(row.references for row in rows)

    def without_each(who: str, section: str) -> dict[str, list[float]]:
        if not all(who in row.captions for row in rows):
            return {}
        captions = [row.captions[who] for row in rows]
        scored = score(captions, references)
        kept = {name: run.number(f"{section}.{name}") for name in JUDGED}
        known = [n for n in JUDGED if (value := kept[n]) is not None and abs(value - scored[n]) <= SAME_SCORE]
        left = score_without_each(captions, references) if known else {}
        return {name: left[name] for name in known}

    own = without_each("caption", "metrics")
    scores, gaps, sides = dict[str, Estimate](), dict[str, dict[str, Estimate]](), dict[str, dict[str, str]]()
    for name, left in own.items():
        if (estimate := over_items(run.number(f"metrics.{name}") or 0.0, left)) is not None:
            scores[name] = estimate
    for control in CONTROLS:
        others = without_each(control, f"controls.{control}") if own else {}
        if own and own.keys() <= others.keys():
            known: dict[str, Estimate] = {}
            for name, left in own.items():
                gap = (run.number(f"metrics.{name}") or 0.0) - (run.number(f"controls.{control}.{name}") or 0.0)
                estimate = over_items(gap, [one - other for one, other in zip(left, others[name], strict=True)])
                if estimate is not None:
                    known[name] = estimate
            gaps[control] = known
            shown = verdicts(list(known.values()), normal=True)
            sides[control] = {
                name: _side_of_all(known[name].mean) if side == "unknown" else side
                for name, side in zip(known, shown, strict=True)
            }
    return OverInputs(scores, gaps, sides)


def _side_of_all(gap: float) -> str:
    """The side of a gap that is the same for every input, as 0 is where both have the same captions."""
    return "either" if abs(gap) <= SAME_SCORE else "above" if gap > 0 else "below"
