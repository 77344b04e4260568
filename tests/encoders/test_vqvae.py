"""The vector-quantised autoencoder: how its codes follow the latents, and how gradients pass them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lockdec.encoders.configuration import VQVAEConfig
from lockdec.encoders.vqvae import VQVAE, Codebook

SIZES: dict[str, Any] = {"resolution": 32, "widths": [8, 12], "blocks": 1, "channels": 6, "codes": 16}


def test_the_nearest_code_is_the_one_at_the_smallest_distance() -> None:
    torch.manual_seed(0)
    book, latents = Codebook(7, 3), torch.randn(4, 5, 3)
    assert book.nearest(latents).equal(torch.cdist(latents, book.codes.expand(4, 7, 3)).argmin(-1))


def test_the_states_are_codes() -> None:
    torch.manual_seed(0)
    model = VQVAE(VQVAEConfig(**SIZES)).eval()
    pictures = torch.rand(2, 3, 32, 32)
    latents = model.latents(pictures)
    assert latents.shape == (2, 8 * 8, 6)
    distances = torch.cdist(latents.flatten(0, 1), model.codebook.codes)
    assert distances.min(dim=1).values.max() < 1e-5
    assert distances.argmin(dim=1).equal(model.codebook.nearest(model.continuous(pictures)).flatten())


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
    model = VQVAE(VQVAEConfig(**SIZES))
    latents = model.continuous(torch.rand(2, 3, 32, 32))
    codes = model.codebook.codes[model.codebook.nearest(latents)]
    through = latents + (codes - latents).detach()
    assert through.allclose(codes, atol=1e-6)
    gradients = torch.autograd.grad(model.pictures(through).sum(), [*model.shrink.parameters()])
    assert all(gradient.abs().max() > 0 for gradient in gradients)
