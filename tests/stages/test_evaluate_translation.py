"""Translations are scored with every strategy that is compared, and beside what copying would reach."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lockdec.config.building import Builder
from lockdec.config.checking import plain
from lockdec.evaluation.metrics import score
from lockdec.pipeline.assembling import build_stages
from lockdec.stages.stage import Work
from lockdec.store import Store
from tests.conftest import TinyRun, composed
from tests.runtime.second_device import SECOND, numbers, second_device
from tests.stages.translating import TRANSLATION


def test_every_held_out_text_is_translated_by_each_strategy_and_scored(translation: TinyRun) -> None:
    result = translation.result
    assert {"bleu4", "chrf", "loss"} <= result["metrics"].keys()
    assert result["controls"].keys() == {"shuffled", "nearest_phrase"}
    assert result["strategies"].keys() == {"greedy", "beam"}
    without_loss = {name: value for name, value in result["metrics"].items() if name != "loss"}
    assert result["strategies"]["beam"] == without_loss
    rows = [json.loads(line) for line in (translation.folder / "captions.jsonl").read_text().splitlines()]
    assert len(rows) == 20
    assert all(
        {"id", "input", "references", "caption", "greedy", "beam", "nearest_phrase", "nearest_phrase_input"}
        <= row.keys()
        for row in rows
    )
    for name in ("greedy", "beam"):
        scores = score([row[name] for row in rows], [row["references"] for row in rows])
        assert result["strategies"][name] == pytest.approx(scores)
    copied = score([row["nearest_phrase"] for row in rows], [row["references"] for row in rows])
    assert result["controls"]["nearest_phrase"] == pytest.approx(copied)


def test_another_device_translates_as_the_cpu_does(translation: TinyRun, tmp_path: Path) -> None:
    config = composed(*TRANSLATION)
    subtrees = {name: plain(config.stages[name]) for name in ("translate", "evaluate")}
    stage = build_stages(subtrees, Builder())["evaluate"]
    store = Store(translation.outputs / "stages")
    made = {name: store.open(name, entry["key"]) for name, entry in translation.result["stages"].items()}
    with second_device() as devices:
        metrics = stage.make(Work("evaluate", tmp_path, {"translate": made["translate"]}, [], SECOND))
    assert devices.products["cpu"] == 0 < devices.products[SECOND.type]
    assert (tmp_path / "captions.jsonl").read_bytes() == made["evaluate"].path("captions.jsonl").read_bytes()
    for name in ("metrics", "controls", "strategies"):
        assert numbers(metrics[name]) == pytest.approx(numbers(made["evaluate"].metrics[name]), rel=1e-5)
