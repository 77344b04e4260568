"""Finetuning: the cross-attention alone learns, from the support set alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

from lockdec.config.building import Builder
from lockdec.data.fewshot import support_set
from lockdec.errors import ConfigError
from lockdec.evaluation.stored import (
    CROSS_ATTENTION_WEIGHTS,
    decoder_fingerprint,
    load_captioner,
    load_decoder,
    load_tokenizer,
)
from lockdec.modules.captioning import Captioning
from lockdec.pipeline.assembling import Assembly, assemble
from lockdec.pipeline.running import artifacts
from lockdec.stages.finetune import Finetune
from lockdec.stages.stage import Work
from lockdec.store import Artifact
from lockdec.tracking.loggers import Tracking
from lockdec.training.batching import CaptionBatch
from lockdec.transformer.models import LockingDecoderModel
from tests.conftest import TinyRun, composed


def test_only_the_cross_attention_changes(made: Mapping[str, Artifact]) -> None:
    before, after = (load_file(made[name].path(CROSS_ATTENTION_WEIGHTS)) for name in ("unlock", "finetune"))
    assert before.keys() == after.keys()
    assert any(not weight.equal(after[name]) for name, weight in before.items())
    assert not [path.name for path in made["finetune"].folder.iterdir() if "decoder" in path.name]
    assert made["finetune"].metrics["frozen"] == {"decoder_ok": True}
    decoder, captioner = load_decoder(made["pretrain"]), load_captioner(made["pretrain"], made["finetune"])
    captioner.lock()
    tokens = torch.tensor([[1, 5, 6, 7], [1, 9, 8, 300]])
    assert captioner(tokens).equal(decoder(tokens))


def test_a_decoder_that_moved_would_be_noticed(
    made: Mapping[str, Artifact], assembled: Assembly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An objective that trains one weight of the decoder is refused by the fingerprint."""

    class Leaking(Captioning):
        def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
            with torch.no_grad():
                cast(LockingDecoderModel, self.model).embedding.tokens.weight[0, 0] += 1

    monkeypatch.setattr("lockdec.modules.captioning.Captioning", Leaking)
    metrics = assembled.stages["finetune"].make(Work("finetune", tmp_path, made, [], torch.device("cpu")))
    assert metrics["frozen"] == {"decoder_ok": False}


def test_every_frozen_tensor_counts_in_the_fingerprint(made: Mapping[str, Artifact]) -> None:
    model = load_captioner(made["pretrain"], made["unlock"])
    before, trained = decoder_fingerprint(model), model.cross_attention_parameters()
    for name, tensor in model.state_dict().items():
        changed = tensor.flatten()[:1].clone()
        tensor.flatten()[:1] += 1
        assert (decoder_fingerprint(model) == before) == (name in trained), name
        tensor.flatten()[:1] = changed
    assert decoder_fingerprint(model) == before


def test_it_learns_from_the_support_set_alone(
    made: Mapping[str, Artifact], assembled: Assembly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, seen = assembled.stages["finetune"], []
    assert isinstance(stage, Finetune)

    class Recorded(Captioning):
        def training_step(self, batch: CaptionBatch, batch_idx: int) -> torch.Tensor:
            seen.extend(batch.tokens.tolist())
            return super().training_step(batch, batch_idx)

    monkeypatch.setattr("lockdec.modules.captioning.Captioning", Recorded)
    stage.make(Work("finetune", tmp_path, made, [], torch.device("cpu")))
    tokenizer = load_tokenizer(made["pretrain"])
    pairs = support_set(stage.data, stage.fewshot.shots, stage.fewshot.support_seed)
    assert {tokenizer.decode(tokens) for tokens in seen} == {pair.caption for pair in pairs}
    assert len(pairs) == made["finetune"].metrics["fewshot"]["shots"] == 16
    assert {pair.index for pair in pairs} <= set(stage.data.splits["train"])
    weights = tmp_path / CROSS_ATTENTION_WEIGHTS
    assert weights.read_bytes() == made["finetune"].path(CROSS_ATTENTION_WEIGHTS).read_bytes(), "the same each time"


def finetuned(outputs: Path, folder: Path, *overrides: str) -> dict[str, Any]:
    """The metrics of finetuning after an unlock stage of its own; the weights are in the folder."""
    assembly = assemble(composed("debug=tiny", f"paths.outputs={outputs}", "logger.kinds=[csv]", *overrides), Builder())
    config = composed("debug=tiny", f"paths.outputs={outputs}")
    tracking = Tracking(assembly.config.logger, "prefix", folder.name, folder, outputs)
    before = [name for name in assembly.stages if name not in ("finetune", "evaluate")]
    parents = {artifact.stage: artifact for artifact, _ in artifacts(config, assembly, tracking, before)}
    folder.mkdir(exist_ok=True)
    return assembly.stages["finetune"].make(Work("finetune", folder, parents, [], torch.device("cpu")))


@pytest.mark.parametrize("dropout", [False, True])
def test_frozen_layers_are_run_once_for_each_caption(
    tiny: TinyRun, tmp_path: Path, dropout: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is learned is what is learned where they are run in every step."""
    overrides = ("cross_attention.layers=last_1", f"finetune.decoder_dropout={str(dropout).lower()}")
    metrics = finetuned(tiny.outputs, tmp_path / "once", *overrides)["finetune"]
    monkeypatch.setattr(Finetune, "prefix", lambda *_: None)
    plain = finetuned(tiny.outputs, tmp_path / "always", *overrides)["finetune"]
    cost = {name: metrics.pop(name, None) for name in ("prefix_layers", "prefix_bytes", "prefix_seconds")}
    assert metrics.pop("dtype") == plain.pop("dtype") == "float32"
    assert metrics == pytest.approx(plain, rel=1e-5)
    once, always = (load_file(tmp_path / name / CROSS_ATTENTION_WEIGHTS) for name in ("once", "always"))
    for name, weight in always.items():
        torch.testing.assert_close(once[name], weight, atol=1e-5, rtol=1e-4)
    if dropout:  # changes the states in each step
        assert cost == dict.fromkeys(cost)
        assert all(once[name].equal(weight) for name, weight in always.items())
    else:
        assert cost["prefix_layers"] == 1
        assert cost["prefix_bytes"] > 0


def test_one_shot_cannot_be_held_out() -> None:
    with pytest.raises(ConfigError, match=r"select=held_out: fewshot\.shots=1 leaves nothing to train on"):
        assemble(composed("debug=tiny", "finetune.select=held_out", "fewshot.shots=1"), Builder())
