"""The variational autoencoder: its posterior, and what of it becomes states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from lockdec.encoders.autoencoder import AutoencoderEncoder
from lockdec.encoders.configuration import VAEConfig
from lockdec.encoders.vae import VAE, Posterior

SIZES: dict[str, Any] = {"resolution": 32, "widths": [8, 12], "blocks": 1, "channels": 6}


@pytest.fixture
def model() -> VAE:
    torch.manual_seed(0)
    return VAE(VAEConfig(**SIZES, vector=False)).eval()


def test_the_states_are_posterior_means_of_the_active_channels(model: VAE) -> None:
    pictures = torch.rand(2, 3, 32, 32)
    means = model.posterior(pictures).mean
    assert means.shape == (2, 8 * 8, 6)
    assert model.latents(pictures).equal(means)
    model.active[2] = False
    latents = model.latents(pictures)
    assert not latents[..., 2].any()
    assert latents[..., [0, 1, 3, 4, 5]].equal(means[..., [0, 1, 3, 4, 5]])


def test_hidden_states_are_those_that_the_latents_are_made_of(model: VAE) -> None:
    pictures = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    images = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pictures]
    encoder, latent = AutoencoderEncoder(model, position=False, hidden=True), AutoencoderEncoder(model, position=False)
    states = encoder.encode(images).states
    assert states.shape == (2, 8 * 8, 12) == (2, 8 * 8, encoder.dim)
    last: Any = model.shrink[-1]
    both = torch.nn.functional.linear(states, last.weight.flatten(1), last.bias)
    torch.testing.assert_close(both[..., :6], latent.encode(images).states)
    assert encoder.fingerprint != latent.fingerprint


def test_a_vector_is_one_latent_that_depends_on_every_corner() -> None:
    torch.manual_seed(0)
    model = VAE(replace(VAEConfig(**SIZES, vector=False), vector=True)).eval()
    pictures = torch.rand(1, 3, 32, 32).repeat(5, 1, 1, 1)
    for row, (y, x) in enumerate(((0, 0), (0, 31), (31, 0), (31, 31)), start=1):
        pictures[row, :, y, x] = 1 - pictures[row, :, y, x]
    latents = model.latents(pictures)
    assert latents.shape == (5, 1, 6)
    assert all(not latents[row].equal(latents[0]) for row in range(1, 5))
    assert model.pictures(latents).shape == pictures.shape


def test_samples_have_the_mean_and_the_variance_of_the_posterior() -> None:
    torch.manual_seed(0)
    variance = torch.tensor([0.25, 1.0, 4.0])
    posterior = Posterior(torch.tensor([1.0, -2.0, 0.0]).expand(50, 1000, 3), variance.log().expand(50, 1000, 3))
    samples = posterior.draw().flatten(0, 1)
    torch.testing.assert_close(samples.mean(0), posterior.mean[0, 0], atol=0.03, rtol=0)
    torch.testing.assert_close(samples.var(0), variance, atol=0, rtol=0.03)


def test_the_divergence_is_that_of_torch() -> None:
    torch.manual_seed(0)
    posterior = VAE(VAEConfig(**SIZES, vector=False)).posterior(torch.rand(2, 3, 32, 32))
    scale = (0.5 * posterior.log_variance).exp()
    normal, prior = torch.distributions.Normal(posterior.mean, scale), torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(normal, prior)
    torch.testing.assert_close(posterior.divergence(), expected, rtol=1e-4, atol=1e-6)
