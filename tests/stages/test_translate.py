"""experiment=translation and experiment=locked_translation: the whole of them, at their smallest."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lockdec.config.building import Builder
from lockdec.config.schema import plain
from lockdec.data.openmoji import OpenMoji
from lockdec.encoders.mlm import PretrainedMaskedLanguageModel
from lockdec.errors import ConfigError, LockdecError
from lockdec.pipeline.assembling import build_stages
from lockdec.pipeline.running import run
from lockdec.stages.attach import Attach
from lockdec.stages.stage import Work
from lockdec.stages.translate import load_translator
from lockdec.store import Store
from tests.conftest import TinyRun, composed
from tests.runtime.second_device import SECOND, numbers, second_device

TRANSLATION = (
    "experiment=translation",
    "data.limit=160",
    "tokenizer.vocab_size=384",
    "decoder={d_model: 32, layers: 1, heads: 2, d_ff: 64}",
    "translate={steps: 20, val_every: 10, optimizer: {warmup_steps: 5}}",
    "evaluate.max_new_tokens=12",
    "logger=none",
)
LOCKED = (
    "experiment=locked_translation",
    "data.limit=160",
    "tokenizer.vocab_size=384",
    "decoder={max_len: 48, d_model: 32, layers: 2, heads: 2, d_ff: 64}",
    "text.name_repeats=1",
    "pretrain={steps: 10, batch_tokens: 512}",
    "pretrain_encoder={steps: 10, vocab_size: 384, model: {d_model: 32, layers: 2, heads: 2, d_ff: 64}}",
    "encoder.layers=[0,2]",
    "cross_attention={heads: 2, d_k: 2, d_v: 2}",
    "fewshot.shots=16",
    "finetune={steps: 10, batch_size: 8}",
    "evaluate.max_new_tokens=12",
    "logger=none",
)


def run_as(outputs: Path, name: str, *overrides: str) -> TinyRun:
    arguments = (*overrides, f"paths.outputs={outputs}")
    folder = outputs / "runs" / name
    return TinyRun(outputs, folder, run(composed(*arguments), folder, arguments))


@pytest.fixture(scope="session")
def translation(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return run_as(tmp_path_factory.mktemp("translation"), "first", *TRANSLATION)


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return run_as(tmp_path_factory.mktemp("locked"), "first", *LOCKED)


def test_translation_leaves_figures_curves_and_samples(translation: TinyRun) -> None:
    result = translation.result
    assert (result["status"], list(result["stages"])) == ("ok", ["translate", "evaluate"])
    assert {"bleu4", "chrf", "loss"} <= result["metrics"].keys()
    assert result["controls"].keys() == {"shuffled", "nearest_phrase"}
    assert result["strategies"].keys() == {"greedy", "beam"}
    without_loss = {name: value for name, value in result["metrics"].items() if name != "loss"}
    assert result["strategies"]["beam"] == without_loss
    assert result["translate"]["pairs"] == result["data"]["train"] == 120
    assert (translation.folder / "curves.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    rows = [json.loads(line) for line in (translation.folder / "captions.jsonl").read_text().splitlines()]
    assert len(rows) == 20
    assert all(
        {"id", "input", "references", "caption", "greedy", "beam", "nearest_phrase", "nearest_phrase_input"}
        <= row.keys()
        for row in rows
    )
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


def test_fewer_pairs_are_the_support_set_for_transformer_and_control(translation: TinyRun) -> None:
    few = run_as(translation.outputs, "few", *TRANSLATION, "translate.shots=4", "translate.steps=2")
    assert few.result["translate"]["pairs"] == 4
    rows = [json.loads(line) for line in (few.folder / "captions.jsonl").read_text().splitlines()]
    assert len({row["nearest_phrase_input"] for row in rows}) <= 4
    with pytest.raises(LockdecError, match=r"fewshot\.shots=500: there are only 120 training texts"):
        run_as(translation.outputs, "many", *TRANSLATION, "translate.shots=500")


def test_the_stored_transformer_is_the_books(translation: TinyRun) -> None:
    artifact = Store(translation.outputs / "stages").find("translate", translation.result["stages"]["translate"]["key"])
    assert artifact is not None
    model, source, target = load_translator(artifact)
    for config in (model.encoder.config, model.decoder.config):
        assert (config.norm, config.position, config.activation, config.tied) == ("post", "sinusoidal", "relu", False)
    assert (model.encoder.config.vocab_size, model.decoder.config.vocab_size) == (source.vocab_size, target.vocab_size)


def test_locked_translation_pretrains_its_encoder_as_a_stage(locked: TinyRun) -> None:
    result = locked.result
    order = ["pretrain", "pretrain_encoder", "attach", "unlock", "finetune", "evaluate"]
    assert (result["status"], list(result["stages"])) == ("ok", order)
    assert result["encoder"]["name"] == "MaskedLanguageModelEncoder"
    assert result["encoder"]["dim"] == 2 * 32
    assert result["unlock"] == {"max_abs_logit_delta": 0.0}
    assert result["frozen"] == {"encoder_ok": True, "decoder_ok": True}
    assert result["controls"].keys() == {"locked", "shuffled", "nearest_neighbour", "nearest_phrase"}
    row = json.loads((locked.folder / "captions.jsonl").read_text().splitlines()[0])
    assert {"input", "nearest_phrase"} <= row.keys()


def test_another_encoder_is_encoded_anew_and_another_dimension_is_not(locked: TinyRun) -> None:
    def made(name: str, *overrides: str) -> list[str]:
        stages = run_as(locked.outputs, name, *LOCKED, *overrides).result["stages"]
        return [stage for stage, entry in stages.items() if not entry["reused"]]

    assert made("dimension", "cross_attention.d_k=1") == ["unlock", "finetune", "evaluate"]
    assert made("layers", "encoder.layers=[1]") == ["attach", "unlock", "finetune", "evaluate"]
    assert made("encoder", "pretrain_encoder.seed=1")[0] == "pretrain_encoder"


def test_an_encoder_without_its_stage_is_refused(tmp_path: Path) -> None:
    order = "pipeline.order=[pretrain,attach,unlock,finetune,evaluate]"
    with pytest.raises(ConfigError, match=r"pipeline\.order=.*: attach needs pretrain_encoder before it"):
        run_as(tmp_path, "orphan", *LOCKED, order)
    encoder, drawings = PretrainedMaskedLanguageModel(layers=[0]), OpenMoji(limit=160)
    stage = Attach(data=drawings, encoder=encoder, normalise="none", batch_size=1)
    with pytest.raises(ConfigError, match=r"PretrainedMaskedLanguageModel reads text inputs, but data: OpenMoji has"):
        stage.check()
