"""Attaching an encoder: its states for every input, normalised by the training split alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from lockdec.config.building import Builder
from lockdec.data.captions import CaptionSet
from lockdec.data.folder import Folder
from lockdec.data.openmoji import OpenMoji
from lockdec.data.pieces import Pieces
from lockdec.encoders.contract import Encoder
from lockdec.encoders.encoded import EncodedSet
from lockdec.encoders.mlm import PretrainedMaskedLanguageModel
from lockdec.encoders.sound import LogMel
from lockdec.errors import ConfigError, DataError
from lockdec.pipeline.assembling import Assembly, assemble
from lockdec.stages.attach import Attach
from lockdec.stages.stage import Work
from lockdec.store import Artifact
from tests.conftest import composed, run_tiny
from tests.encoders.array_encoder import Scaled
from tests.encoders.kinds import Given

CPU = torch.device("cpu")


def test_states_are_the_encoders_normalised_by_the_training_split_alone(tmp_path: Path) -> None:
    """Against means and deviations computed here by numpy; the held-out inputs lie far from the others."""
    rng = np.random.default_rng(0)
    inputs: list[Any] = [rng.normal(size=(5, 3)).astype(np.float32) for _ in range(12)]
    inputs[6:] = [100 + 10 * array for array in inputs[6:]]
    data, encoder = Given(inputs, "array"), Scaled(3)
    stage = Attach(data=data, encoder=encoder, normalise="standardise", batch_size=4)
    stage.make(Work("attach", tmp_path, {}, [], CPU))
    encoded = EncodedSet.open(tmp_path)
    raw = encoder.encode(inputs).states.double()
    train = raw[list(data.splits["train"])].flatten(0, 1)
    expected = (raw - train.mean(0)) / train.std(0, correction=0)
    torch.testing.assert_close(encoded.batch(range(12)).states.double(), expected, rtol=2e-3, atol=2e-3)


def test_the_states_of_the_drawings_are_in_the_order_of_the_rows(
    made: Mapping[str, Artifact], assembled: Assembly
) -> None:
    stage, encoded = assembled.stages["attach"], EncodedSet.open(made["attach"].folder)
    assert isinstance(stage, Attach)
    assert isinstance(stage.encoder, Encoder)
    assert encoded.ids == stage.data.ids
    rows = [stage.data.splits["test"][0], stage.data.splits["train"][3], stage.data.splits["val"][1]]
    raw = stage.encoder.encode(stage.data.inputs(rows))
    expected = encoded.normalisation(raw.states.flatten(0, 1)).reshape(raw.states.shape)
    torch.testing.assert_close(encoded.batch(rows).states, expected, rtol=2e-3, atol=5e-3)
    assert made["attach"].metrics["frozen"] == {"encoder_ok": True}


def test_a_wrong_encoder_fails_before_anything_is_pretrained(tmp_path: Path) -> None:
    """The class is a user's: its network computes in another precision than its preprocessing yields."""
    encoder = "encoder._target_=tests.encoders.array_encoder.InDouble"
    with pytest.raises(RuntimeError, match=r"dtype"):
        run_tiny(tmp_path, "wrong", "encoder=logmel", "data=pieces", "data.form=sound", "~encoder.pool",
                 "~encoder.seconds", "~encoder.position", encoder)  # fmt: skip
    assert not list((tmp_path / "stages").glob("pretrain/*")), "the decoder was not pretrained first"


def attached(inputs: list[Any], folder: Path) -> None:
    stage = Attach(data=Given(inputs, "array"), encoder=Scaled(3), normalise="standardise", batch_size=4)
    stage.make(Work("attach", folder, {}, [], CPU))


def test_a_batch_holds_at_least_one_input() -> None:
    with pytest.raises(ConfigError, match=r"^stages\.attach\.batch_size=0 must be at least 1$"):
        Attach(data=Given([np.zeros((5, 3))] * 12, "array"), encoder=Scaled(3), normalise="none", batch_size=0).check()


@pytest.mark.parametrize("at", [0, 5])
def test_an_input_that_cannot_be_encoded_is_named(at: int, tmp_path: Path) -> None:
    sounds: list[Any] = [np.full(800, 0.5, np.float32) for _ in range(12)]
    sounds[at] = np.full(800, 20_000, np.int16)
    stage = Attach(data=Given(sounds, "array"), encoder=LogMel(seconds=1), normalise="standardise", batch_size=4)
    problem = rf"^input '{stage.data.ids[at]}': LogMel reads sounds .* not integers of up to 20000: divide"
    with pytest.raises(DataError, match=problem):
        stage.make(Work("attach", tmp_path, {}, [], CPU))
    if at == 0:
        with pytest.raises(DataError, match=problem):
            stage.rehearse(CPU, {}, {})


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_sounds_of_another_rate_than_the_encoder_hears_are_refused(rate: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.wav", rng.uniform(-1, 1, 800), 16_000)
    rows = "".join(f"{number}.wav,a sound\n" for number in range(4))
    (tmp_path / "captions.csv").write_text(f"input,caption\n{rows}", encoding="utf-8")

    def stage(data: CaptionSet) -> Attach:
        return Attach(data=data, encoder=LogMel(seconds=1), normalise="standardise", batch_size=4)

    stage(Folder(str(tmp_path))).check()
    stage(Pieces("sound", limit=32)).check()
    problem = rf"LogMel reads 16000 samples a second, but data: Folder has {rate}; .* data\.rate=16000$"
    with pytest.raises(ConfigError, match=problem):
        stage(Folder(str(tmp_path), rate=rate)).check()


@pytest.mark.parametrize(
    ("data", "encoder", "problem"),
    [
        (Pieces(limit=32), LogMel(1), "LogMel reads sound inputs, but data: Pieces has text inputs"),
        (
            Pieces("sound", limit=32),
            PretrainedMaskedLanguageModel([0]),
            "reads text inputs, but data: Pieces has sound",
        ),
    ],
)
def test_samples_are_called_sounds(data: CaptionSet, encoder: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Attach(data=data, encoder=encoder, normalise="standardise", batch_size=4).check()


def test_it_says_that_inputs_are_longer_than_what_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pieces = Pieces("sound", limit=32)
    for seconds, said in ((3, True), (30, False)):
        (tmp_path / str(seconds)).mkdir()
        work = Work("attach", tmp_path / str(seconds), {}, [], torch.device("cpu"))
        Attach(data=pieces, encoder=LogMel(seconds), normalise="standardise", batch_size=8).make(work)
        told = " ".join(capsys.readouterr().out.split())
        assert ("inputs examined are longer than LogMel reads; their ends are left out" in told) == said


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            ("data=pieces", "encoder=mlm", "encoder.layers=[0,9]"),
            r"^encoder\.layers=\[0, 9\]: one or more of 0 .* to 3",
        ),
        (("data=pieces", "encoder=mlm", "stages.attach.normalise=[none]"), r"normalise=\['none'\]: .* give 2 kinds"),
        (("encoder=vae", "stages.attach.normalise=[none,none,none]"), r"the states have 2 groups of channels"),
        (("encoder=two_views", "stages.attach.normalise=[none]"), r"the states have 5 groups of channels"),
    ],
)
def test_what_an_encoder_will_not_have_is_refused_before_it_is_pretrained(
    overrides: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        assemble(composed("debug=tiny", *overrides), Builder())


def test_it_says_that_all_states_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    constant = [np.full((5, 3), 0.1, np.float32) for _ in range(12)]
    attached(constant, tmp_path)
    attached(constant, tmp_path)  # as another cell of a sweep does
    told = "the states that Scaled gives 6 inputs that were compared are all the same"
    assert capsys.readouterr().out.count(told) == 1
    assert EncodedSet.open(tmp_path).batch(range(12)).states.eq(0).all(), "no noise is amplified"
    constant[2] = constant[2] + np.eye(5, 3, dtype=np.float32)
    attached(constant, tmp_path)
    assert "the same" not in capsys.readouterr().out


def test_the_stage_that_pretrains_the_encoder_is_the_parent() -> None:
    drawings = OpenMoji(limit=160)
    stage = Attach(data=drawings, encoder=Scaled(3), normalise="none", batch_size=1)
    assert stage.parents({}) == ()
    pretrained = replace(stage, encoder=PretrainedMaskedLanguageModel(layers=[0]))
    assert pretrained.parents({}) == ("pretrain_encoder",)
    with pytest.raises(ConfigError, match=r"PretrainedMaskedLanguageModel reads text inputs, but data: OpenMoji has"):
        pretrained.check()
