"""docs/study/how_long.md: how many steps of finetuning it takes."""

from __future__ import annotations

from lockdec.report.headline import interval
from lockdec.report.study import Study
from measurements.estimates import by, difference, score, table

STEPS = 400  # of finetuning, by default


def steps(study: Study) -> dict[str, str]:
    """One row per number of shots and one column per number of steps; the paired difference to the default number."""
    found = {
        (int(str(shots)), int(str(overrides).removeprefix("finetune.steps="))): setting
        for (shots, overrides), setting in by(study, "fewshot.shots", "overrides").items()
    }
    rows, columns = sorted({shots for shots, _ in found}), sorted({count for _, count in found})
    others = [count for count in columns if count != STEPS]
    scores = [[str(shots), *(interval(score(found[shots, count])) for count in columns)] for shots in rows]
    gaps = [
        [str(shots), *(interval(difference(found[shots, count], found[shots, STEPS]), signed=True) for count in others)]
        for shots in rows
    ]
    seen = [
        [str(shots), *(interval(score(found[shots, count], view="shuffled"), signed=True) for count in columns)]
        for shots in rows
    ]
    return {
        "steps": table(["shots", *(f"{count:,} steps" for count in columns)], scores),
        "steps loss": table(["shots", *(f"{count:,} steps" for count in others)], gaps),
        "steps seen": table(["shots", *(f"{count:,} steps" for count in columns)], seen),
    }
