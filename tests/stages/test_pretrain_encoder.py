"""A text encoder is pretrained as a stage of its own, which what reads it depends on: experiment=locked_translation."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lockdec.config.building import Builder
from lockdec.data.openmoji import OpenMoji
from lockdec.data.text import TextFile
from lockdec.data.tokenizer import Tokenizer
from lockdec.encoders.mlm import PretrainedMaskedLanguageModel
from lockdec.errors import ConfigError
from lockdec.pipeline.assembling import assemble
from lockdec.stages.attach import Attach
from lockdec.stages.pretrain_encoder import PretrainEncoder
from lockdec.stages.stage import Work
from lockdec.training.batching import TextDataModule
from tests.conftest import TinyRun, composed
from tests.stages.translating import LOCKED, run_as


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return run_as(tmp_path_factory.mktemp("locked"), "first", *LOCKED)


def test_locked_translation_pretrains_its_encoder_as_a_stage(locked: TinyRun) -> None:
    result = locked.result
    order = ["pretrain", "pretrain_encoder", "attach", "unlock", "finetune", "prior", "evaluate"]
    assert (result["status"], list(result["stages"])) == ("ok", order)
    assert result["encoder"]["name"] == "MaskedLanguageModelEncoder"
    assert result["encoder"]["dim"] == 2 * 32
    assert result["unlock"] == {"max_abs_logit_delta": 0.0}
    assert result["frozen"] == {"encoder_ok": True, "decoder_ok": True}
    assert result["controls"].keys() == {"prior", "locked", "shuffled", "nearest_neighbour", "nearest_phrase"}
    row = json.loads((locked.folder / "captions.jsonl").read_text().splitlines()[0])
    assert {"input", "nearest_phrase"} <= row.keys()


def test_another_encoder_is_encoded_anew_and_another_dimension_is_not(locked: TinyRun) -> None:
    def made(name: str, *overrides: str) -> list[str]:
        stages = run_as(locked.outputs, name, *LOCKED, *overrides).result["stages"]
        return [stage for stage, entry in stages.items() if not entry["reused"]]

    assert made("dimension", "cross_attention.d_k=1") == ["unlock", "finetune", "evaluate"]
    assert made("layers", "encoder.layers=[1]") == ["attach", "unlock", "finetune", "evaluate"]
    order = "pipeline.order=[pretrain,pretrain_encoder,attach]"
    assert made("encoder", "pretrain_encoder.seed=1", order) == ["pretrain_encoder", "attach"]


def test_its_control_is_what_it_was_before_training(locked: TinyRun) -> None:
    control = run_as(locked.outputs, "random", *LOCKED, "encoder=random_mlm", "pipeline.order=[pretrain_encoder]")
    assert "loss" in locked.result["pretrain_encoder"]
    assert not control.result["pretrain_encoder"]
    keys = [made.result["stages"]["pretrain_encoder"]["key"] for made in (locked, control)]
    trained, random = (locked.outputs / "stages" / "pretrain_encoder" / key for key in keys)
    assert (trained / "tokenizer.json").read_bytes() == (random / "tokenizer.json").read_bytes()
    assert (trained / "encoder.json").read_bytes() == (random / "encoder.json").read_bytes()
    assert (trained / "encoder.safetensors").read_bytes() != (random / "encoder.safetensors").read_bytes()


def test_an_encoder_without_its_stage_is_refused(tmp_path: Path) -> None:
    order = "pipeline.order=[pretrain,attach,unlock,finetune,evaluate]"
    with pytest.raises(ConfigError, match=r"pipeline\.order=.*: attach needs pretrain_encoder before it"):
        run_as(tmp_path, "orphan", *LOCKED, order)
    encoder, drawings = PretrainedMaskedLanguageModel(layers=[0]), OpenMoji(limit=160)
    stage = Attach(data=drawings, encoder=encoder, normalise="none", batch_size=1)
    with pytest.raises(ConfigError, match=r"PretrainedMaskedLanguageModel reads text inputs, but data: OpenMoji has"):
        stage.check()


def test_more_texts_are_read_without_those_held_out(
    locked: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = assemble(composed(*LOCKED, f"paths.outputs={tmp_path}"), Builder()).stages["pretrain_encoder"]
    assert isinstance(stage, PretrainEncoder)
    held_out = [str(text) for text in stage.data.inputs([stage.data.splits["test"][0], stage.data.splits["val"][0]])]
    lines = tmp_path / "lines.txt"
    leaks = [held_out[0].upper(), f"{held_out[1]}.", unicodedata.normalize("NFD", held_out[1])]
    lines.write_text("\n".join(["ein hund", *leaks, "Zwei  Hu\u0308te"]) + "\n", encoding="utf-8")
    more = replace(stage, sources={"mine": TextFile(str(lines))}, fit=replace(stage.fit, whole_words=True))
    assert more.fingerprints() == stage.fingerprints() | {"mine": TextFile(str(lines)).fingerprint}
    seen: list[str] = []

    class Recorded(TextDataModule):
        def __init__(self, tokenizer: Tokenizer, texts: list[str], **options: Any) -> None:
            seen.extend(texts)
            super().__init__(tokenizer, texts, **options)

    monkeypatch.setattr("lockdec.training.batching.TextDataModule", Recorded)
    (folder := tmp_path / "made").mkdir()
    metrics = more.make(Work("pretrain_encoder", folder, {}, [], torch.device("cpu")))
    train = [str(text) for text in stage.data.inputs(stage.data.splits["train"])]
    assert seen == [*train, "ein hund", "zwei h\u00fcte"]
    assert metrics["pretrain_encoder"]["val_loss"] > 0
