"""Fill in how far confidences can be trusted: python docs/confidence.py RUN

RUN is the folder of a finished run, whose test inputs are captioned. The text after `<!-- confidence -->` in
docs/library.md is replaced.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from placeholders import fill
from scipy.stats import spearmanr

from lockdec.config.building import TRUSTED, Builder
from lockdec.data.captions import CaptionSet
from lockdec.data.fewshot import support_set
from lockdec.evaluation.finished import FinishedRun, find_run
from lockdec.evaluation.metrics import METRICS
from lockdec.library.loading import open_run

PAGE = Path(__file__).with_name("library.md")
PARTS = 5  # of the test inputs, by their confidence
POWERS = [number / 20 for number in range(1, 101)]  # of the confidence, tried for calibration
Point = tuple[float, float]
"""The confidence of a caption, and its token F1."""


def points(run: FinishedRun, rows: Sequence[int], data: CaptionSet) -> list[Point]:
    """What is captioned for these rows."""
    captions = open_run(run).caption(data.inputs(rows))
    f1 = METRICS["token_f1"]
    return [
        (caption.confidence, f1([caption.text], [data.captions[row]]))
        for caption, row in zip(captions, rows, strict=True)
    ]


def error(found: Sequence[Point], power: float = 1.0) -> float:
    """The mean over ten equal parts of |mean confidence - mean F1|, the confidence raised to a power."""
    ordered = sorted(found)
    parts = [ordered[len(ordered) * part // 10 : len(ordered) * (part + 1) // 10] for part in range(10)]
    return fmean(abs(fmean(c**power for c, _ in part) - fmean(f1 for _, f1 in part)) for part in parts)


def main(folder: Path) -> None:
    """Write the section of the page."""
    run = find_run(folder)
    data: CaptionSet = Builder(TRUSTED).build(dict(run.config["data"]), "data", CaptionSet)
    fewshot = run.config["fewshot"]
    pairs = support_set(data, fewshot["shots"], fewshot["support_seed"], fewshot["references"])
    test = points(run, data.splits["test"], data)
    support = points(run, sorted({pair.index for pair in pairs}), data)
    power = min(POWERS, key=lambda power: sum((c**power - f1) ** 2 for c, f1 in support))
    ordered, rows = sorted(test, reverse=True), []
    for part in range(PARTS):
        some = ordered[len(ordered) * part // PARTS : len(ordered) * (part + 1) // PARTS]
        so_far = ordered[: len(ordered) * (part + 1) // PARTS]
        exact = fmean(f1 == 1 for _, f1 in some)
        cells = [fmean(c for c, _ in some), fmean(f1 for _, f1 in some), exact, fmean(f1 for _, f1 in so_far)]
        share = f"{100 * part // PARTS}% to {100 * (part + 1) // PARTS}%"
        rows.append(f"| {share} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")
    head = ["most confident", "mean confidence", "mean token F1", "share of F1 1", "token F1 of all so far"]
    table = "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *rows])
    off, after = error(test), error(test, power)
    correlation = spearmanr([confidence for confidence, _ in test], [f1 for _, f1 in test]).statistic
    told = [
        f"Spearman's correlation with token F1 is {correlation:.2f}, over {len(test)} test inputs.",
        f"Confidence less F1 is {off:.3f} off, as a mean over ten parts.",
        f"Raising the confidence to the power that suits the {len(support)} support inputs best, {power:g}, makes that",
        f"{after:.3f}: their mean F1 is {fmean(f1 for _, f1 in support):.3f}, since they were trained on.",
    ]
    text = f"{table}\n\n{' '.join(told)}"
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), {"confidence": text}, str(PAGE)), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
