"""Pretraining: what the decoder may read, and what it makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from lockdec.data.tokenizer import Tokenizer, train_tokenizer
from lockdec.evaluation.stored import load_decoder, load_tokenizer
from lockdec.pipeline.assembling import Assembly
from lockdec.stages import pretrain
from lockdec.stages.pretrain import Pretrain
from lockdec.stages.stage import Work
from lockdec.store import Artifact
from lockdec.training.batching import TextDataModule


def test_no_held_out_caption_is_read_but_to_measure_the_validation_loss(
    assembled: Assembly, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tokenizer and the batches are given is recorded on the way."""
    stage = assembled.stages["pretrain"]
    assert isinstance(stage, Pretrain)
    trained, learned, measured = [], [], []
    tokenize, batches = train_tokenizer, TextDataModule

    class Recorded(batches):  # type: ignore[valid-type, misc]
        def __init__(self, tokenizer: Tokenizer, texts: list[str], val: list[str], **settings: int) -> None:
            trained.extend(texts)
            measured.extend(val)
            super().__init__(tokenizer, texts, val, **settings)

    def recorded(texts: list[str], size: int) -> Tokenizer:
        learned.extend(texts)
        return tokenize(texts, size)

    monkeypatch.setattr(pretrain, "TextDataModule", Recorded)
    monkeypatch.setattr(pretrain, "train_tokenizer", recorded)
    stage.make(Work("pretrain", tmp_path, {}, [], torch.device("cpu")))
    data = stage.data
    held_out = {*data.references("val"), *data.references("test")}
    assert held_out.isdisjoint(trained)
    assert held_out.isdisjoint(learned)
    assert set(measured) == set(data.references("val"))
    assert set(data.references("train")) - held_out <= set(trained)


def test_the_decoder_comes_back_locked_and_has_learned(made: Mapping[str, Artifact], assembled: Assembly) -> None:
    stage, decoder = assembled.stages["pretrain"], load_decoder(made["pretrain"])
    assert isinstance(stage, Pretrain)
    assert decoder.locked
    assert not decoder.attached
    assert decoder.config == stage.decoder
    assert load_tokenizer(made["pretrain"]).vocab_size == stage.tokenizer.vocab_size
    uniform = torch.tensor(float(stage.tokenizer.vocab_size)).log().item()
    assert 0 < made["pretrain"].metrics["pretrain"]["val_loss"] < uniform
