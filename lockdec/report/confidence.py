"""Whether a run's confidence can be trusted: a reliability diagram, and risk against coverage.

Confidence is the geometric mean of the probabilities of a caption's tokens; token F1 stands for how right a caption is.
Reliability diagrams: Niculescu-Mizil and Caruana 2005. Risk and coverage: Geifman and El-Yaniv 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from statistics import fmean

from lockdec.evaluation.metrics import METRICS
from lockdec.report.figures import Figure, Trace, line
from lockdec.report.results import Run, read_captions
from lockdec.report.statistics import estimates

PARTS = 10  # of the inputs, by their confidence
LEAST_INPUTS = 5 * PARTS
MOST_POINTS = 200  # of a curve
F1 = "token_f1"
Point = tuple[float, float]
"""The confidence of a caption, and its token F1."""


def confidence(run: Run) -> list[Figure]:
    """Both figures of a run; none where it kept too few captions, or captions without their confidence."""
    rows, _ = read_captions(run)
    points = sorted(
        ((row.confidence, METRICS[F1]([row.captions["caption"]], [row.references])) for row in rows
         if row.confidence is not None and row.references and "caption" in row.captions),
        reverse=True,
    )  # fmt: skip
    if len(points) < max(LEAST_INPUTS, len(rows)):
        return []
    return [reliability(points), risk(points)]


def reliability(points: Sequence[Point]) -> Figure:
    """Token F1 against confidence, in ten equal parts of the inputs."""
    parts = [points[len(points) * part // PARTS : len(points) * (part + 1) // PARTS] for part in range(PARTS)]
    xs = [fmean(sure for sure, _ in part) for part in parts]
    found = [one for one in estimates([[f1 for _, f1 in part] for part in parts]) if one is not None]
    off = fmean(abs(x - one.mean) for x, one in zip(xs, found, strict=True))
    measured = line(0, "token F1", [round(x, 4) for x in xs], [round(one.mean, 4) for one in found])
    measured["error_y"] = {
        "type": "data", "symmetric": False, "thickness": 1.5, "width": 4, "color": measured["marker"]["color"],
        "array": [None if one.high is None else round(one.high - one.mean, 4) for one in found],
        "arrayminus": [None if one.low is None else round(one.mean - one.low, 4) for one in found],
    }  # fmt: skip
    return Figure(
        "reliability",
        "Reliability of the confidence",
        f"Each marker is a tenth of the {len(points):,} inputs, by the confidence of their captions; whiskers: 95 % "
        "intervals over inputs. Where confidence could be read as token F1, markers would lie on the dashed line: on "
        f"average they are {off:.3f} off.",
        ("given",),
        (measured, _guide("confidence = token F1", [0, 1], [0, 1])),
        {
            "xaxis": {"title": {"text": "confidence"}, "range": [0, 1]},
            "yaxis": {"title": {"text": "token F1"}, "range": [0, 1]},
        },
    )


def risk(points: Sequence[Point]) -> Figure:
    """1 - token F1 of the captions that are kept, against how many are."""
    errors = [1 - f1 for _, f1 in points]
    shares = [(place + 1) / len(errors) for place in range(len(errors))]
    kept = {*range(0, len(errors), max(1, len(errors) // MOST_POINTS)), len(errors) - 1}

    def means(ordered: Sequence[float]) -> list[float]:
        return [round(total / (place + 1), 4) for place, total in enumerate(accumulate(ordered)) if place in kept]

    xs = [round(shares[place], 4) for place in sorted(kept)]
    curve = line(0, "most confident first", xs, means(errors)) | {"mode": "lines"}
    best = line(1, "best captions first", xs, means(sorted(errors))) | {"mode": "lines"}
    return Figure(
        "risk-coverage",
        "Risk against coverage",
        "The mean of 1 - token F1 if only the most confident captions are kept. A confidence that said nothing would "
        "give the dashed line; one that ordered captions by their token F1, the line of the best captions.",
        ("given",),
        (curve, best, _guide("in any order", [0, 1], [round(fmean(errors), 4)] * 2)),
        {
            "xaxis": {"title": {"text": "share of the inputs that are captioned"}, "range": [0, 1]},
            "yaxis": {"title": {"text": "1 - token F1"}, "rangemode": "tozero"},
        },
    )


def _guide(name: str, xs: Sequence[float], ys: Sequence[float]) -> Trace:
    guide = line(0, name, xs, ys) | {"mode": "lines", "hoverinfo": "skip"}
    return guide | {"line": {"color": "var(--muted)", "dash": "dash", "width": 1.5}}
