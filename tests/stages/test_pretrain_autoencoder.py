"""The autoencoders of drawings: what their bottlenecks do, and the stages that pretrain them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lockdec.data.captions import CaptionSet, Input
from lockdec.data.openmoji import OpenMoji
from lockdec.data.translation import translation_pairs
from lockdec.encoders.autoencoder import AutoencoderEncoder
from lockdec.encoders.configuration import VAEConfig, VQVAEConfig
from lockdec.encoders.encoded import EncodedSet
from lockdec.encoders.vae import VAE, PretrainedVAE
from lockdec.encoders.vqvae import PretrainedVQVAE
from lockdec.errors import ConfigError
from lockdec.stages.pretrain_autoencoder import (
    PretrainAutoencoder,
    PretrainVAE,
    PretrainVAEConfig,
    PretrainVQVAE,
    PretrainVQVAEConfig,
    active_channels,
    draw_reconstructions,
)
from lockdec.stages.stage import Work
from lockdec.training.pixels import write_pixels
from tests.encoders.kinds import Given
from tests.runtime.second_device import SECOND, second_device
from tests.training.test_fit import CPU, adamw

SIZES: dict[str, Any] = {"resolution": 32, "widths": [8, 12], "blocks": 1, "channels": 6}


@pytest.fixture(scope="module")
def drawings() -> OpenMoji:
    return OpenMoji("random", limit=40, resolution=32)


def stage(kind: str, data: CaptionSet, steps: int = 12, **changes: Any) -> PretrainAutoencoder:
    training: dict[str, Any] = {"seed": 0, "steps": steps, "batch_size": 4, "optimizer": adamw(learning_rate=1e-2)}
    common: dict[str, Any] = {"data": data, "trainer": CPU, "callbacks": {}} | changes
    if kind == "vae":
        model = VAEConfig(**SIZES, vector=False)
        return PretrainVAE(fit=PretrainVAEConfig(model=model, kl_weight=1e-4, free_bits=0.0, **training), **common)
    sizes = VQVAEConfig(**SIZES, codes=16)
    return PretrainVQVAE(fit=PretrainVQVAEConfig(model=sizes, commitment=0.05, **training), **common)


def make(made: PretrainAutoencoder, folder: Path) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    metrics: dict[str, Any] = made.make(Work("pretrain", folder, {}, [], torch.device("cpu")))["pretrain"]
    return metrics


def test_what_follows_the_training_works_on_the_device(drawings: OpenMoji, tmp_path: Path) -> None:
    mapped = write_pixels(tmp_path / "pixels", drawings, range(30), 32)
    torch.manual_seed(0)
    model = VAE(VAEConfig(**SIZES, vector=False)).eval()
    active = active_channels(model, mapped)
    draw_reconstructions(model, mapped, tmp_path / "here.png")
    with second_device() as devices:
        model.to(SECOND)
        assert torch.equal(active_channels(model, mapped), active)
        draw_reconstructions(model, mapped, tmp_path / "there.png")
    assert devices.products["cpu"] == 0 < devices.products[SECOND.type]
    assert (tmp_path / "there.png").read_bytes() == (tmp_path / "here.png").read_bytes()


class KilledAt(L.Callback):
    """Ends the process's training as a kill would: without another checkpoint."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["vae", "vqvae"])
def test_a_killed_pretraining_ends_bit_identical(kind: str, drawings: OpenMoji, tmp_path: Path) -> None:
    whole = make(stage(kind, drawings), tmp_path / "whole")
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        make(stage(kind, drawings, callbacks={"kill": KilledAt(7)}), tmp_path / "killed")
    assert (tmp_path / "killed" / "last.ckpt").is_file()
    resumed = make(stage(kind, drawings), tmp_path / "killed")
    assert resumed == whole
    for name in ("encoder.safetensors", "metrics.csv", "reconstructions.png"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list(tmp_path.rglob("*.uint8"))


@pytest.mark.parametrize("kind", ["vae", "vqvae"])
def test_training_brings_the_reconstruction_down(kind: str, drawings: OpenMoji, tmp_path: Path) -> None:
    short, long = (make(stage(kind, drawings, steps), tmp_path / str(steps)) for steps in (1, 60))
    assert long["val_reconstruction"] < 0.7 * short["val_reconstruction"]
    if kind == "vqvae":
        assert 1 <= long["val_perplexity"] <= 16
    picture = Image.open(tmp_path / "60" / "reconstructions.png")
    shown = len(drawings.splits["val"])
    assert picture.size == (shown * 32, 2 * 32)
    rows = np.asarray(picture)
    inputs = [np.asarray(image) for image in drawings.inputs(drawings.splits["val"])]
    assert (rows[:32] == np.concatenate(inputs, axis=1)).all()
    error = np.square((rows[32:].astype(float) - rows[:32]) / 255).mean()
    assert error == pytest.approx(long["val_reconstruction"], rel=0.02)


def test_pictures_outside_the_training_split_cannot_change_the_weights(drawings: OpenMoji, tmp_path: Path) -> None:
    class Repainted(OpenMoji):
        def inputs(self, indices: Any) -> list[Input]:
            held_out = {*self.splits["val"], *self.splits["test"]}
            black = Image.new("RGB", (32, 32))
            pairs = zip(indices, super().inputs(indices), strict=True)
            return [black if row in held_out else image for row, image in pairs]

    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, data in zip(folders, (drawings, Repainted("random", limit=40, resolution=32)), strict=True):
        make(stage("vae", data), folder)
    weights, others = (load_file(folder / "encoder.safetensors") for folder in folders)
    assert all(weights[name].equal(others[name]) for name in weights)


def test_untrained_keeps_the_first_weights_of_the_same_seed(drawings: OpenMoji, tmp_path: Path) -> None:
    control = stage("vae", drawings, untrained=True)
    metrics = make(control, tmp_path / "control")
    assert metrics == {"active_channels": 6}
    make(stage("vae", drawings), tmp_path / "trained")
    L.seed_everything(0, verbose=False)
    first = VAE(VAEConfig(**SIZES, vector=False)).state_dict()
    saved, trained = (load_file(tmp_path / name / "encoder.safetensors") for name in ("control", "trained"))
    assert all(saved[name].equal(first[name]) for name in first)
    assert not trained["shrink.0.weight"].equal(saved["shrink.0.weight"])
    assert PretrainedVAE(position=True).open(tmp_path / "control").dim == 6 + 5


def test_what_was_pretrained_is_opened_as_it_was(drawings: OpenMoji, tmp_path: Path) -> None:
    make(stage("vqvae", drawings, steps=3), tmp_path / "stage")
    encoder = PretrainedVQVAE(position=False).open(tmp_path / "stage")
    codes = load_file(tmp_path / "stage" / "encoder.safetensors")["codebook.codes"]
    states = encoder.encode(drawings.inputs([0, 1, 2])).states
    assert all(any(state.equal(code) for code in codes) for state in states.flatten(0, 1))


def test_inputs_that_are_no_pictures_are_refused() -> None:
    words = translation_pairs(limit=160)
    with pytest.raises(ConfigError, match="an autoencoder reads image inputs, but data: EmojiNames has text inputs"):
        stage("vae", words).check()


def test_channels_that_ignore_the_picture_are_found_set_to_zero_and_not_amplified(
    drawings: OpenMoji, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = VAE(VAEConfig(**SIZES, vector=False))
    last = model.shrink[-1]
    assert isinstance(last, torch.nn.Conv2d)
    with torch.no_grad():
        last.weight[:6] *= torch.tensor([900.0, 900.0, 1e-3, 900.0, 0.0, 1e-2])[:, None, None, None]
    pixels = write_pixels(tmp_path / "pixels", drawings, drawings.splits["train"], 32)
    active = active_channels(model, pixels)
    assert active.tolist() == [True, True, False, True, False, False]
    model.active.copy_(active)
    for kind in ("standardise", "whiten"):
        data = Given(drawings.inputs(range(8)), "image")
        encoded = EncodedSet.write(tmp_path, AutoencoderEncoder(model, position=False), data, kind, dtype="float32")
        states = encoded.batch(data.splits["train"]).states.flatten(0, 1)
        assert states[:, active].std(dim=0).min() > 0.5
        assert states[:, ~active].abs().max() < 1e-12
