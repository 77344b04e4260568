"""The autoencoders of drawings: what their bottlenecks do, and the stages that pretrain them."""

from __future__ import annotations

import math
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
from lockdec.encoders.autoencoder import AutoencoderEncoder, from_bytes
from lockdec.encoders.configuration import VAEConfig, VQVAEConfig
from lockdec.encoders.encoded import EncodedSet
from lockdec.encoders.vae import VAE, PretrainedVAE
from lockdec.encoders.vqvae import VQVAE, Codebook, PretrainedVQVAE
from lockdec.errors import ConfigError
from lockdec.modules.autoencoding import VariationalAutoencoding
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


def test_channels_that_say_nothing_are_found_silenced_and_not_blown_up(drawings: OpenMoji, tmp_path: Path) -> None:
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


def test_the_divergence_is_that_of_torch() -> None:
    torch.manual_seed(0)
    posterior = VAE(VAEConfig(**SIZES, vector=False)).posterior(torch.rand(2, 3, 32, 32))
    scale = (0.5 * posterior.log_variance).exp()
    normal, prior = torch.distributions.Normal(posterior.mean, scale), torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(normal, prior)
    torch.testing.assert_close(posterior.divergence(), expected, rtol=1e-4, atol=1e-6)


def test_free_bits_leave_a_channel_below_them_alone() -> None:
    pictures = torch.rand(2, 3, 32, 32)
    gradients = []
    for free_bits in (0.0, 1e6):
        torch.manual_seed(0)
        model = VAE(VAEConfig(**SIZES, vector=False))
        module = VariationalAutoencoding(model, adamw(), 1, "stage", kl_weight=1e9, free_bits=free_bits)
        losses = module.eval().losses(pictures)
        charge = losses["loss"] - losses["reconstruction"]
        gradients.append(
            sum(float(part.abs().sum()) for part in torch.autograd.grad(charge, [*model.shrink.parameters()]))
        )
    assert gradients[0] > 0
    assert gradients[1] == 0


def test_codes_move_to_the_mean_of_the_latents_that_choose_them() -> None:
    """With the same two clusters at every step the moving averages end in their means."""
    torch.manual_seed(0)
    book = Codebook(2, 3)
    left, right = torch.randn(50, 3) * 0.1 - 5, torch.randn(150, 3) * 0.1 + 5
    latents = torch.cat([left, right])[None]
    for _ in range(800):
        book.follow(latents, book.nearest(latents))
    means = torch.stack([left.mean(0), right.mean(0)])
    found = book.codes[book.codes[:, 0].argsort()]
    torch.testing.assert_close(found, means, atol=0.02, rtol=0)
    assert sorted(book.usage.tolist()) == pytest.approx([50, 150], rel=0.01)
    assert float(book.perplexity(book.nearest(latents))) == pytest.approx(
        math.exp(-(0.25 * math.log(0.25) + 0.75 * math.log(0.75)))
    )


def test_a_dead_code_starts_again_at_a_latent() -> None:
    torch.manual_seed(0)
    book = Codebook(3, 2)
    latents = torch.randn(1, 40, 2)
    book.follow(latents, book.nearest(latents))
    book.codes[2] = torch.tensor([1000.0, 1000.0])
    steps = 0
    while book.codes[2].abs().max() > 10 and steps < 100:
        book.follow(latents, book.nearest(latents))
        steps += 1
    assert steps == 69, "0.99^69 is the first power below a half"
    assert any(book.codes[2].equal(latent) for latent in latents[0])


def test_the_gradient_goes_through_the_codes_to_the_latents() -> None:
    torch.manual_seed(0)
    model = VQVAE(VQVAEConfig(**SIZES, codes=16))
    latents = model.continuous(torch.rand(2, 3, 32, 32))
    codes = model.codebook.codes[model.codebook.nearest(latents)]
    through = latents + (codes - latents).detach()
    assert through.allclose(codes, atol=1e-6)
    gradients = torch.autograd.grad(model.pictures(through).sum(), [*model.shrink.parameters()])
    assert all(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 30}, r"resolution=30: use a multiple of 4, since 2 widths halve it as often"),
        ({"widths": []}, r"widths=\[\]: one or more counts"),
        ({"channels": 0}, "channels=0"),
        ({"blocks": -1}, "blocks=-1: must not be negative"),
    ],
)
def test_impossible_sizes_are_refused_by_their_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"pretrain_vae\.model\.{message}"):
        VAEConfig(**SIZES | changes, vector=False).check("pretrain_vae.model")


def test_bytes_become_numbers_from_0_to_1() -> None:
    batch = torch.tensor([0, 51, 204, 255], dtype=torch.uint8).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert from_bytes(batch)[0, 0].flatten().tolist() == pytest.approx([0, 0.2, 0.8, 1])
