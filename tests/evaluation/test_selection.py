"""Which step of a finetuning is kept: by held-out shots alone, and the same one however often it is interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from lockdec.encoders.encoded import EncodedSet
from lockdec.evaluation import selection
from lockdec.evaluation.stored import CROSS_ATTENTION_WEIGHTS, load_tokenizer
from lockdec.pipeline.assembling import Assembly
from lockdec.stages.finetune import Finetune
from lockdec.stages.stage import Work
from lockdec.store import Artifact
from lockdec.transformer.models import LockingDecoderModel


@pytest.fixture
def choosing(assembled: Assembly) -> Finetune:
    """A stage that holds out 2 of its 16 shots, and takes steps so large that it overshoots."""
    stage = assembled.stages["finetune"]
    assert isinstance(stage, Finetune)
    optimizer = replace(stage.fit.optimizer, learning_rate=10.0, warmup_steps=1, schedule="constant")
    fit = replace(stage.fit, select="held_out", steps=24, state_noise=0.0, optimizer=optimizer)
    return replace(stage, fit=fit)


def finetuned(stage: Finetune, folder: Path, made: Mapping[str, Artifact]) -> tuple[bytes, dict[str, Any]]:
    """The weights that a stage makes, and its metrics."""
    folder.mkdir(exist_ok=True)
    metrics = stage.make(Work("finetune", folder, made, [], torch.device("cpu")))
    return (folder / CROSS_ATTENTION_WEIGHTS).read_bytes(), metrics["finetune"]


def test_the_kept_step_has_the_lowest_loss_on_what_was_held_out(
    made: Mapping[str, Artifact], choosing: Finetune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a training that stops at each measured step, and the loss of its captions computed here."""
    monkeypatch.setattr(selection, "MEASURE_EVERY", 4)
    kept, metrics = finetuned(choosing, tmp_path / "kept", made)
    tokenizer, encoded = load_tokenizer(made["pretrain"]), EncodedSet.open(made["attach"].folder)
    learned, held_out = choosing.split_support()
    assert (len(learned), len(held_out)) == (14, metrics["held_out_pairs"]) == (14, 2)

    class Stopped(L.Callback):
        losses: ClassVar[dict[int, float]] = {}
        weights: ClassVar[dict[int, dict[str, torch.Tensor]]] = {}

        def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: object) -> None:
            if trainer.global_step % 4 == 0:
                model = module.model
                assert isinstance(model, LockingDecoderModel)
                total, count = 0.0, 0
                for pair in held_out:
                    tokens = tokenizer.batch([pair.caption], 48)
                    logits = model.eval()(tokens[:, :-1], encoded.batch([pair.index])).detach()[0]
                    total += float(F.cross_entropy(logits, tokens[0, 1:], reduction="sum"))
                    count += tokens.shape[1] - 1
                self.losses[trainer.global_step] = total / count
                weights = model.cross_attention_parameters()
                self.weights[trainer.global_step] = {name: w.detach().clone() for name, w in weights.items()}

    again, _ = finetuned(replace(choosing, callbacks={"stopped": Stopped()}), tmp_path / "again", made)
    assert again == kept
    best = min(Stopped.losses, key=Stopped.losses.__getitem__)
    assert metrics["kept_step"] == best < 24, "a later step has to be worse for this test to say anything"
    assert metrics["held_out_loss"] == pytest.approx(Stopped.losses[best], rel=1e-4)
    saved = load_file(tmp_path / "kept" / CROSS_ATTENTION_WEIGHTS)
    assert all(weight.equal(saved[name]) for name, weight in Stopped.weights[best].items())


def test_the_step_is_chosen_without_val_or_test(
    made: Mapping[str, Artifact], choosing: Finetune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "MEASURE_EVERY", 4)
    data = copy(choosing.data)
    data.captions = tuple(
        captions if row in data.splits["train"] else ("poison",) for row, captions in enumerate(data.captions)
    )
    poisoned = finetuned(replace(choosing, data=data), tmp_path / "poisoned", made)
    assert poisoned == finetuned(choosing, tmp_path / "clean", made)


def test_a_resumed_training_keeps_the_same_step(
    made: Mapping[str, Artifact], choosing: Finetune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at every step in turn: before the best, at it, and after it, when only the checkpoint knows it."""
    monkeypatch.setattr(selection, "MEASURE_EVERY", 4)
    trainer = replace(choosing.trainer, checkpoint_seconds=0.0)
    whole = finetuned(choosing, tmp_path / "whole", made)

    class Killed(L.Callback):
        step = 0

        def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
            if trainer.global_step == self.step:
                raise RuntimeError("killed")

    killed = Killed()
    for step in range(3, 24, 4 + 1):
        killed.step = step
        stage = replace(choosing, trainer=trainer, callbacks={"killed": killed})
        with pytest.raises(RuntimeError, match="killed"):
            finetuned(stage, tmp_path / str(step), made)
        killed.step = 0
        assert finetuned(stage, tmp_path / str(step), made) == whole
