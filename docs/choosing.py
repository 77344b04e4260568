"""Fill in what it helps to draw several captions and choose one of them: python docs/choosing.py SWEEPS

SWEEPS is the folder of the sweeps `choosing_*` (outputs/sweeps). For each of their runs, test inputs are captioned and
captions are drawn; a row of figures is added to choosing.csv, where runs that it has already are left out. Without
SWEEPS the table is made again from that file. The text after `<!-- choosing -->` in docs/library.md is replaced.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import TypeAlias

from measured import commit
from measurements.estimates import one, table
from placeholders import fill
from scipy.stats import spearmanr

from lockdec.config.building import Builder
from lockdec.data.captions import CaptionSet, spread
from lockdec.evaluation.finished import CaptionerParts, FinishedRun, find_run, open_captioner
from lockdec.evaluation.metrics import METRICS
from lockdec.evaluation.scoring import Candidate, locked, token_log_probs
from lockdec.library.captioner import Caption, Captioner
from lockdec.report.headline import interval

PAGE = Path(__file__).with_name("library.md")
RESULTS = PAGE.with_name("choosing.csv")
DRAWN = 12  # captions of each input, of which one is chosen
SWEEPS = {  # sweep: what is shown of it, and how many test inputs
    "choosing_efficientnet_lite0": ("EfficientNet-Lite0 on drawings", 400),
    "choosing_minilm": ("MiniLM on German names", 400),
    "choosing_vae": ("VAE on drawings", 400),
    "choosing_smollm2": ("EfficientNet-Lite0, decoder SmolLM2-135M", 100),
}
BATCH = 64  # captions at a time
Choice: TypeAlias = Caption | Candidate


@dataclass(frozen=True)
class Row:
    """What one run reaches.

    Attributes:
        sweep, seed: of the run.
        key: of its evaluation.
        inputs: how many test inputs.
        greedy: token F1 of the greedy caption.
        best: the highest that a choice among the drawn captions could reach.
        mbr: of the one that is most similar to the others.
        likeliest: of the one of the highest log p(caption | input).
        surest: of the one of the highest confidence, which is the same for each token.
        evidence_25, evidence_50, evidence_100: of the highest log p(caption | input) - w log p(caption | locked), with
            w = 0.25, 0.5, 1.
        log_prob, confidence: Spearman's correlation of these of the greedy caption with its token F1.
    """

    sweep: str
    seed: int
    key: str
    inputs: int
    greedy: float
    best: float
    mbr: float
    likeliest: float
    surest: float
    evidence_25: float
    evidence_50: float
    evidence_100: float
    log_prob: float
    confidence: float


def measured(run: FinishedRun, sweep: str, inputs: int) -> Row:
    """Caption test inputs of a run, draw captions of them, and choose among these in several ways."""
    data: CaptionSet = Builder().build(dict(run.config["data"]), "data", CaptionSet)
    rows = spread(data.splits["test"], inputs)
    parts = open_captioner(run)
    captioner, given = Captioner(parts, run=run), data.inputs(rows)

    def f1(row: int, text: str) -> float:
        return METRICS["token_f1"]([text], [data.captions[row]])

    greedy = captioner.caption(given, strategy="greedy")
    reached = [f1(row, caption.text) for row, caption in zip(rows, greedy, strict=True)]
    # The chosen caption comes first, then all others that differ from it.
    drawn = captioner.caption(given, DRAWN, strategy="mbr", candidates=DRAWN, utility="token_f1", seed=0)
    choices: list[list[Choice]] = [[caption, *caption.alternatives] for caption in drawn]
    alone = without_input(parts, [choice.text for several in choices for choice in several])

    def chosen(by: Callable[[Choice], float]) -> float:
        return fmean(f1(row, max(several, key=by).text) for row, several in zip(rows, choices, strict=True))

    def evidence(weight: float) -> float:
        return chosen(lambda choice: choice.log_prob - weight * alone[choice.text])

    return Row(
        sweep,
        int(run.config["seed"]),
        run.artifact("evaluate").key,
        len(rows),
        fmean(reached),
        fmean(max(f1(row, choice.text) for choice in several) for row, several in zip(rows, choices, strict=True)),
        fmean(f1(row, several[0].text) for row, several in zip(rows, choices, strict=True)),
        chosen(lambda choice: choice.log_prob),
        chosen(lambda choice: choice.confidence),
        evidence(0.25),
        evidence(0.5),
        evidence(1.0),
        spearmanr([caption.log_prob for caption in greedy], reached).statistic,
        spearmanr([caption.confidence for caption in greedy], reached).statistic,
    )


def without_input(parts: CaptionerParts, captions: Sequence[str]) -> dict[str, float]:
    """log p(caption | locked decoder) of each different caption, in nats."""
    model, tokenizer, once, found = parts.model, parts.tokenizer, sorted(set(captions), key=len), dict[str, float]()
    for start in range(0, len(once), BATCH):
        some = once[start : start + BATCH]
        tokens = tokenizer.batch(some, model.room)
        with locked(model):
            each = token_log_probs(model, tokens, None, tokenizer.special.eos, len(tokenizer.prompt_tokens))
        found |= zip(some, each.sum(1).tolist(), strict=True)
    return found


def known() -> list[Row]:
    """The rows of the file."""
    if not RESULTS.is_file():
        return []
    with RESULTS.open(encoding="utf-8", newline="") as file:
        kinds = {field.name: {"str": str, "int": int, "float": float}[str(field.type)] for field in fields(Row)}
        return [Row(**{name: kinds[name](text) for name, text in row.items()}) for row in csv.DictReader(file)]


def keep(rows: Sequence[Row]) -> None:
    """Write the file."""
    with RESULTS.open("w", encoding="utf-8", newline="") as file:
        written = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        written.writeheader()
        written.writerows({name: shown(value) for name, value in asdict(row).items()} for row in rows)


def shown(value: float | str) -> str:
    """A cell of the file."""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def newly_measured(sweeps: Path) -> None:
    """Add a row for each finished run that has none."""
    for sweep, (_, inputs) in SWEEPS.items():
        for folder in sorted((sweeps / sweep).glob("[0-9]*")):
            run, rows = find_run(folder), known()
            if run.artifact("evaluate").key not in {row.key for row in rows}:
                print(folder, flush=True)
                rows = [row for row in rows if (row.sweep, row.seed) != (sweep, int(run.config["seed"]))]
                keep(sorted([*rows, measured(run, sweep, inputs)], key=lambda row: (row.sweep, row.seed)))


def filling(rows: Sequence[Row]) -> str:
    """The table: for each sweep the greedy caption, and how far each choice is ahead of it."""
    choices = ("mbr", "likeliest", "surest", "evidence_25", "evidence_50", "evidence_100")
    lines = []
    for sweep, (words, _) in SWEEPS.items():
        of_sweep = [row for row in rows if row.sweep == sweep]
        if not of_sweep:
            continue
        ahead = (one([getattr(row, choice) - row.greedy for row in of_sweep]) for choice in choices)
        lines.append([
            words,
            f"{of_sweep[0].inputs}",
            interval(one([row.greedy for row in of_sweep])),
            *(interval(gap, signed=True) for gap in ahead),
            interval(one([row.best for row in of_sweep])),
            interval(one([row.confidence for row in of_sweep])),
            interval(one([row.log_prob for row in of_sweep])),
        ])  # fmt: skip
    weighed = [f"evidence, w = {weight}" for weight in ("0.25", "0.5", "1")]
    head = ["", "inputs", "greedy", "mbr", "likeliest", "surest", *weighed]
    return table([*head, "best of those drawn", "confidence and F1", "log_prob and F1"], lines)


def main(sweeps: Path | None) -> None:
    """Measure what has not been, and write the section of the page."""
    if sweeps is not None:
        newly_measured(sweeps)
    origin = f"{RESULTS.name}, commit {commit()}" if sweeps is not None else None
    text = fill(PAGE.read_text(encoding="utf-8"), {"choosing": filling(known())}, str(PAGE), origin)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else None)
