"""README.md: what lockdec reaches."""

from __future__ import annotations

from lockdec.report.headline import interval
from lockdec.report.study import Study
from measurements.estimates import by, control, score, table


def reached(study: Study) -> dict[str, str]:
    """One row per number of shots: scores, and those of the controls that come nearest."""
    rows = []
    for (shots,), setting in sorted(by(study, "fewshot.shots").items(), key=lambda item: int(str(item[0][0]))):
        row = [f"{int(str(shots)):,}", interval(score(setting)), f"{control(setting, 'prior').mean:.3f}",
               f"{control(setting, 'nearest_neighbour').mean:.3f}"]  # fmt: skip
        for metric, digits in (("exact", 3), ("cider_d", 2)):
            row.append(f"{score(setting, metric).mean:.{digits}f}")
            row.append(f"{control(setting, 'nearest_neighbour', metric).mean:.{digits}f}")
        rows.append(row)
    head = ["shots", "token F1", "`prior`", "`nearest_neighbour`", "exact", "`nearest_neighbour`", "CIDEr-D"]
    return {"reached": table([*head, "`nearest_neighbour`"], rows)}
