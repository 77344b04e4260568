"""docs/defaults.md: how the optimizer was chosen."""

from __future__ import annotations

from lockdec.report.headline import interval
from lockdec.report.study import Study
from measurements.estimates import by, difference, score, table


def optimizers(study: Study) -> dict[str, str]:
    """One row per number of shots and sizes of cross-attention: AdamW, Muon and their paired difference."""
    settings = by(study, "cross_attention.d_k", "cross_attention.d_v", "fewshot.shots", "overrides")
    found = {(key[:3], "experiment=adamw" in str(key[3]).split()): setting for key, setting in settings.items()}
    rows = []
    for d_k, d_v, shots in sorted({key for key, _ in found}, key=str):
        adamw, muon = found[(d_k, d_v, shots), True], found[(d_k, d_v, shots), False]
        ahead = interval(difference(muon, adamw), signed=True)
        exact = interval(difference(muon, adamw, "exact"), signed=True)
        rows.append([f"{d_k}", f"{d_v}", f"{shots}", interval(score(adamw)), interval(score(muon)), ahead, exact])
    rows.sort(key=lambda row: (int(row[1]), int(row[2])))
    head = ["d_k", "d_v", "shots", "AdamW, 1,200 steps", "Muon, 400 steps", "difference", "difference in exact names"]
    return {"optimizers": table(head, rows)}
