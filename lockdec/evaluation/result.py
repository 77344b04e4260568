"""result.json from release to release: its schema, the names of the controls in it, and how an older one is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SCHEMA = 3
READABLE = (1, 2, SCHEMA)

MEASURED = (
    "bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d", "chrf", "token_f1", "exact", "distinct", "loss"
)  # fmt: skip
"""The metrics of result.json: those of `lockdec.evaluation.metrics`, and the loss."""

EARLIER = {"rouge_l_f1": "ROUGE-L of schemas 1 and 2: the best F1 over the references, not COCO's F"}
"""Metrics that results of earlier releases have and today's do not, by the names under which they are read."""

CONTROLS = {
    "prior": "the decoder, taught the captions of the support set without ever seeing an input",
    "locked": "the pretrained decoder with its cross-attention locked, which cannot see the input",
    "shuffled": "the trained captioner, given a wrong input; averaged over several choices of it",
    "nearest_neighbour": "a copy of the caption of the support input with the closest encoder states",
    "nearest_phrase": "a copy of the caption of the support text that is closest in characters",
}
"""What a captioner is compared with: each control has one name everywhere, and one meaning."""


HARMLESS = re.compile(
    r"(name|sweep_name|objective|dry_run)$"
    r"|trainer\.(accelerator|devices|strategy|threads|checkpoint_seconds)$"
    r"|(paths|logger|hydra|hparams_search)([./]|$)"
).match
"""Whether a key of the config changes no result, whatever its value is."""


def current(result: Mapping[str, Any]) -> dict[str, Any]:
    """The content of result.json under today's names, whichever of the `READABLE` schemas it was written in.

    Schemas 1 and 2 have another ROUGE-L (`EARLIER`). Schema 1 also has `gap_over_blind` for `gap_over_locked` and, for
    translations, `nearest_neighbour` for `nearest_phrase`.
    """
    found = dict(result)
    schema = found.get("schema")
    if schema not in READABLE or schema == SCHEMA:
        return found
    found["schema"] = SCHEMA
    if schema == 1:
        if "gap_over_blind" in found:
            found["gap_over_locked"] = found.pop("gap_over_blind")
        controls = found.get("controls")
        if "strategies" in found and isinstance(controls, Mapping):
            found["controls"] = {_PHRASE.get(name, name): scores for name, scores in controls.items()}
    for section in ("metrics", "controls", "strategies", "gap_over_locked"):
        if section in found:
            found[section] = _with_earlier_names(found[section])
    return found


def current_caption(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of captions.jsonl under today's names; a run of schema 1 left other names in those of a translation."""
    found = dict(row)
    if {"greedy", "beam", "nearest_neighbour"} <= found.keys():
        found["nearest_phrase_input"] = found.pop("nearest_phrase", None)
        found["nearest_phrase"] = found.pop("nearest_neighbour")
    return found


def _with_earlier_names(scores: object) -> object:
    """Metrics by name, or such by the name of a control, with the ROUGE-L of earlier releases under its own name."""
    if not isinstance(scores, Mapping):
        return scores
    return {"rouge_l_f1" if name == "rouge_l" else name: _with_earlier_names(value) for name, value in scores.items()}


_PHRASE = {"nearest_neighbour": "nearest_phrase"}
