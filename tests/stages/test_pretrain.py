"""Pretraining: what the decoder may read, and what it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lockdec.config.building import Builder
from lockdec.data.captions import Case
from lockdec.data.tokenizer import Tokenizer, train_tokenizer
from lockdec.evaluation.stored import load_decoder, load_tokenizer
from lockdec.pipeline.assembling import Assembly, assemble
from lockdec.stages import pretrain
from lockdec.stages.pretrain import Pretrain
from lockdec.stages.stage import Work
from lockdec.store import Artifact
from lockdec.training.batching import TextDataModule
from tests.conftest import TinyRun, composed
from tests.data.caption_rows import Texts


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

    def recorded(texts: list[str], size: int, case: Case) -> Tokenizer:
        learned.extend(texts)
        return tokenize(texts, size, case)

    monkeypatch.setattr("lockdec.training.batching.TextDataModule", Recorded)
    monkeypatch.setattr(pretrain, "train_tokenizer", recorded)
    stage.make(Work("pretrain", tmp_path, {}, [], torch.device("cpu")))
    data = stage.data
    held_out = {*data.references("val"), *data.references("test")}
    assert held_out.isdisjoint(trained)
    assert held_out.isdisjoint(learned)
    assert set(measured) == set(data.references("val"))
    assert set(data.references("train")) - held_out <= set(trained)


def test_the_key_follows_from_the_captions_of_every_split(assembled: Assembly) -> None:
    stage = assembled.stages["pretrain"]
    assert isinstance(stage, Pretrain)
    names = [["a dog"], ["a cat", "cat"], ["a cow"], ["a hen"], ["a pig"], ["a fox"]]

    def fingerprints(captions: list[list[str]], sizes: tuple[int, int, int] = (4, 1, 1)) -> dict[str, str]:
        return replace(stage, data=Texts(captions, sizes)).fingerprints()

    for row in range(6):  # trained on, measured, or kept out of the text
        assert fingerprints([*names[:row], ["a bee"], *names[row + 1 :]]) != fingerprints(names)
    assert fingerprints(names, (3, 2, 1)) != fingerprints(names)


def test_the_same_captions_share_one_decoder_however_their_inputs_are_encoded(tmp_path: Path) -> None:
    """The same rows as texts and as ids of stored states; what is encoded is another artifact."""
    rows = "".join(f"text {row},a {name}\n" for row, name in enumerate(("dog", "cat", "cow", "hen", "pig", "fox")))
    (tmp_path / "captions.csv").write_text(f"input,caption\n{rows}", encoding="utf-8")
    (tmp_path / "ids.txt").write_text("".join(f"text {row}\n" for row in range(6)), encoding="utf-8")
    np.save(tmp_path / "states.npy", np.ones((6, 2, 3), np.float32))
    folder = ("debug=tiny", "data=folder", f"data.path={tmp_path}", "data.limit=null", "fewshot.shots=2")
    texts = assemble(composed(*folder, "encoder=minilm"), Builder()).keys
    arrays = composed(*folder, "data.modality=array", "encoder=features", f"encoder.path={tmp_path}")
    states = assemble(arrays, Builder()).keys
    assert texts["pretrain"] == states["pretrain"]
    assert texts["attach"] != states["attach"]


def test_pictures_of_another_size_share_the_decoder(tiny: TinyRun) -> None:
    larger = assemble(composed("debug=tiny", "data.resolution=160"), Builder()).keys
    assert larger["pretrain"] == tiny.result["stages"]["pretrain"]["key"]
    assert larger["attach"] != tiny.result["stages"]["attach"]["key"]


def test_the_decoder_comes_back_locked_and_has_learned(made: Mapping[str, Artifact], assembled: Assembly) -> None:
    stage, decoder = assembled.stages["pretrain"], load_decoder(made["pretrain"])
    assert isinstance(stage, Pretrain)
    assert decoder.locked
    assert not decoder.attached
    assert decoder.config == stage.decoder
    assert load_tokenizer(made["pretrain"]).vocab_size == stage.tokenizer.vocab_size
    uniform = torch.tensor(float(stage.tokenizer.vocab_size)).log().item()
    assert 0 < made["pretrain"].metrics["pretrain"]["val_loss"] < uniform
