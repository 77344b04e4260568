"""Fill in how many held-out drawings equal a training drawing, and what that changes: python docs/repeated.py SWEEP

SWEEP is the folder of runs with `data=openmoji` that differ in the split and the seed. The text after
`<!-- repeated -->` in docs/data.md is replaced.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from measured import commit
from measurements.estimates import one, table
from placeholders import fill

from lockdec.config.building import Builder
from lockdec.data.captions import CaptionSet
from lockdec.evaluation.finished import FinishedRun, find_run
from lockdec.evaluation.metrics import METRICS
from lockdec.report.headline import interval

PAGE = Path(__file__).with_name("data.md")
COLUMNS = {  # in words: of what in captions.jsonl, and by which metric
    "token F1": ("caption", "token_f1"),
    "exact": ("caption", "exact"),
    "neighbour's token F1": ("nearest_neighbour", "token_f1"),
}


def repeated(data: CaptionSet) -> set[str]:
    """The ids of the test inputs that equal a training input, pixel for pixel."""
    content = [np.asarray(picture).tobytes() for picture in data.inputs(range(len(data.ids)))]
    known = {content[row] for row in data.splits["train"]}
    return {data.ids[row] for row in data.splits["test"] if content[row] in known}


def scores(run: FinishedRun, without: set[str]) -> list[float]:
    """Of each column, what is reached on all test inputs, and on all but these ids."""
    lines = (run.folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows: list[Mapping[str, str]] = [json.loads(line) for line in lines]
    parts = (rows, [row for row in rows if row["id"] not in without])
    return [
        METRICS[metric]([row[name] for row in part], [row["references"] for row in part])
        for name, metric in COLUMNS.values()
        for part in parts
    ]


def filling(runs: Sequence[FinishedRun]) -> str:
    """The table: a row for each split."""
    by_split: dict[str, list[FinishedRun]] = {}
    for run in runs:
        by_split.setdefault(str(run.config["data"]["split"]), []).append(run)
    lines = []
    for split, several in by_split.items():
        data: CaptionSet = Builder().build(dict(several[0].config["data"]), "data", CaptionSet)
        ids, count = repeated(data), len(data.splits["test"])
        reached = zip(*(scores(run, ids) for run in several), strict=True)
        lines.append([split, f"{len(ids)} of {count}", *(interval(one(column)) for column in reached)])
    head = [f"{words}, {part}" for words in COLUMNS for part in ("all", "the others")]
    return table(["split", "equal a training drawing", *head], lines)


def main(sweep: Path) -> None:
    """Write the section of the page."""
    runs = [find_run(folder) for folder in sorted(sweep.glob("[0-9]*"), key=lambda folder: int(folder.name))]
    text = fill(
        PAGE.read_text(encoding="utf-8"), {"repeated": filling(runs)}, str(PAGE), f"these commands, commit {commit()}"
    )
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
