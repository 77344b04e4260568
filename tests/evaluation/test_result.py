"""result.json and captions.jsonl of earlier releases: kept as they were written, read under today's names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lockdec.evaluation.finished import find_run
from lockdec.evaluation.metrics import LOWER_IS_BETTER, METRICS
from lockdec.evaluation.result import EARLIER, MEASURED, SCHEMA, current, current_caption
from lockdec.report import results
from lockdec.report.page import write_report

CAPTIONING_1 = """{
 "schema": 1, "status": "ok", "error": null, "name": "demo", "sweep_name": null, "seed": 0, "overrides": [],
 "command": "python -m lockdec.run",
 "data": {"split": "compositional", "name": "OpenMoji", "evaluated": "test", "train": 3128, "val": 392, "test": 395},
 "stages": {"evaluate": {"key": "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391e69de29bb2d1d6434b8b29ae", "reused": false,
   "seconds": 3.5}},
 "metrics": {"token_f1": 0.625, "exact": 0.25, "loss": 1.5},
 "controls": {
  "shuffled": {"token_f1": 0.25, "exact": 0.0, "loss": 4.5},
  "locked": {"token_f1": 0.125, "exact": 0.0, "loss": 4.0},
  "nearest_neighbour": {"token_f1": 0.5, "exact": 0.125}
 },
 "gap_over_blind": {"token_f1": 0.5, "exact": 0.25, "loss": -2.5},
 "cost": {"seconds": 181.25, "peak_memory_mb": 912.5}
}"""
TRANSLATION_1 = """{
 "schema": 1, "status": "ok", "error": null, "name": "demo", "sweep_name": null, "seed": 0, "overrides": [],
 "stages": {},
 "metrics": {"token_f1": 0.625, "bleu4": 0.5},
 "controls": {"shuffled": {"token_f1": 0.25, "bleu4": 0.0}, "nearest_neighbour": {"token_f1": 0.5, "bleu4": 0.25}},
 "strategies": {"greedy": {"token_f1": 0.5, "bleu4": 0.5}, "beam": {"token_f1": 0.625, "bleu4": 0.5}}
}"""
TRANSLATED_1 = """{"id": "1F469", "input": "woman", "references": ["frau"], "caption": "frau", "shuffled": "mann",
 "nearest_neighbour": "frauen", "greedy": "frau", "beam": "frau", "nearest_phrase": "women"}"""
CAPTIONED_2 = """{"id": "1F469", "references": ["woman"], "input": "woman", "caption": "woman", "shuffled": "man",
 "locked": "flag", "nearest_neighbour": "women", "nearest_phrase": "wombat"}"""


def left(folder: Path, result: str, captions: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(result)
    (folder / "captions.jsonl").write_text(json.dumps(json.loads(captions)) + "\n")
    (folder / "config.yaml").write_text("objective: token_f1\nevaluate: {split: test}\n")
    return folder


def test_the_gap_of_schema_1_is_read_under_its_new_name(tmp_path: Path) -> None:
    folder = left(tmp_path / "run", CAPTIONING_1, CAPTIONED_2)
    (run,) = results.read([folder]).runs
    assert run.number("gap_over_locked.token_f1") == 0.5
    assert not [name for name in run.values if "blind" in name]
    assert run.number("controls.nearest_neighbour.token_f1") == 0.5, "closest in states, as it was"
    assert find_run(folder).result["gap_over_locked"] == {"token_f1": 0.5, "exact": 0.25, "loss": -2.5}
    assert write_report([folder]).skipped == ()
    assert "0.500 over locked" in (folder / "report.html").read_text()


def test_the_copied_translation_of_schema_1_is_the_nearest_phrase(tmp_path: Path) -> None:
    folder = left(tmp_path / "run", TRANSLATION_1, TRANSLATED_1)
    (run,) = results.read([folder]).runs
    assert run.number("controls.nearest_phrase.bleu4") == 0.25
    assert not [name for name in run.values if "nearest_neighbour" in name]
    (row,), notes = results.read_captions(run)
    assert row.captions == {"caption": "frau", "shuffled": "mann", "nearest_phrase": "frauen"}
    assert notes == []
    assert current_caption(json.loads(TRANSLATED_1))["nearest_phrase_input"] == "women"
    page = write_report([folder]).report.read_text()
    assert "over nearest_phrase" in page
    assert "over nearest_neighbour" not in page


def test_runs_of_both_schemas_stand_in_one_report(tmp_path: Path) -> None:
    left(tmp_path / "sweep" / "0", CAPTIONING_1, CAPTIONED_2)
    renewed = current(json.loads(CAPTIONING_1)) | {"seed": 1}
    left(tmp_path / "sweep" / "1", json.dumps(renewed), CAPTIONED_2)
    old, new = results.read([tmp_path / "sweep"]).runs
    assert old.values.keys() == new.values.keys()


@pytest.mark.parametrize("content", [CAPTIONING_1, TRANSLATION_1])
def test_what_is_current_stays_as_it_is(content: str) -> None:
    once = current(json.loads(content))
    assert once["schema"] == SCHEMA
    assert current(once) == once
    assert current_caption(json.loads(CAPTIONED_2)) == json.loads(CAPTIONED_2)


def test_the_rouge_l_of_earlier_schemas_is_another_metric(tmp_path: Path) -> None:
    """It was the best F1 over the references; no report averages it with COCO's."""
    scores = '"token_f1": 0.625, "rouge_l": 0.5'
    written = CAPTIONING_1.replace('"schema": 1', '"schema": 2').replace('"token_f1": 0.625', scores)
    folder = left(tmp_path / "run", written, CAPTIONED_2)
    (run,) = results.read([folder]).runs
    assert run.number("metrics.rouge_l_f1") == 0.5
    assert run.number("metrics.rouge_l") is None
    page = write_report([folder]).report.read_text()
    assert "ROUGE-L (best F1)" in page
    assert "The run was written by an earlier release, with ROUGE-L" in page
    today = left(tmp_path / "today", written.replace('"schema": 2', f'"schema": {SCHEMA}'), CAPTIONED_2)
    assert results.read([today]).runs[0].number("metrics.rouge_l") == 0.5
    assert not EARLIER.keys() & set(MEASURED)


def test_the_names_of_the_metrics_are_those_that_are_measured() -> None:
    assert (*METRICS, *LOWER_IS_BETTER) == MEASURED
