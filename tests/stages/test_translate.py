"""Translation with the book's transformer: experiment=translation at its smallest."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lockdec.config.building import Builder
from lockdec.config.checking import plain
from lockdec.errors import LockdecError
from lockdec.pipeline.assembling import build_stages
from lockdec.stages.stage import Work
from lockdec.stages.translate import load_translator
from lockdec.store import Store
from tests.conftest import TinyRun, composed
from tests.stages.translating import TRANSLATION, run_as


def test_translation_leaves_figures_and_curves(translation: TinyRun) -> None:
    result = translation.result
    assert (result["status"], list(result["stages"])) == ("ok", ["translate", "evaluate"])
    assert result["translate"]["pairs"] == result["data"]["train"] == 120
    assert (translation.folder / "curves.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    with (translation.folder / "stages" / "translate" / "metrics.csv").open() as file:
        curve = list(csv.DictReader(file))
    measured = {row["step"]: row["translate/val_loss"] for row in curve}
    assert measured.keys() == {"10", "20"}
    assert measured["10"] != measured["20"], "each measurement is a new one"
    assert all(0 <= float(row["translate/accuracy"]) <= 1 for row in curve)


def test_a_killed_translation_continues_where_it_stopped(translation: TinyRun, tmp_path: Path) -> None:
    """Steps 11 to 20 alone, from a checkpoint of step 10, give the weights of an uninterrupted training."""

    class Kill(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            if trainer.global_step == 13:
                raise KeyboardInterrupt

    config = composed(*TRANSLATION, "trainer.checkpoint_seconds=0")
    stage: Any = build_stages({"translate": plain(config.stages.translate)}, Builder())["translate"]
    stage.callbacks["kill"] = Kill()
    work = Work("translate", tmp_path, {}, [], torch.device("cpu"))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        stage.make(work)
    assert (tmp_path / "last.ckpt").is_file()
    stage.callbacks.clear()
    stage.make(work)
    whole = translation.outputs / "stages" / "translate" / translation.result["stages"]["translate"]["key"]
    for name in ("transformer.safetensors", "metrics.csv"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes(), name


def test_fewer_pairs_are_the_support_set_for_transformer_and_control(translation: TinyRun) -> None:
    few = run_as(translation.outputs, "few", *TRANSLATION, "translate.shots=4", "translate.steps=2")
    assert few.result["translate"]["pairs"] == 4
    rows = [json.loads(line) for line in (few.folder / "captions.jsonl").read_text().splitlines()]
    assert len({row["nearest_phrase_input"] for row in rows}) <= 4
    with pytest.raises(LockdecError, match=r"fewshot\.shots=500: there are only 120 training inputs"):
        run_as(translation.outputs, "many", *TRANSLATION, "translate.shots=500")


def test_the_stored_transformer_is_the_books(translation: TinyRun) -> None:
    artifact = Store(translation.outputs / "stages").find("translate", translation.result["stages"]["translate"]["key"])
    assert artifact is not None
    model, source, target = load_translator(artifact)
    for config in (model.encoder.config, model.decoder.config):
        assert (config.norm, config.position, config.activation, config.tied) == ("post", "sinusoidal", "relu", False)
    assert (model.encoder.config.vocab_size, model.decoder.config.vocab_size) == (source.vocab_size, target.vocab_size)
