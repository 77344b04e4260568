"""The objectives of the autoencoders: reconstruction, and the price of the bottleneck."""

from __future__ import annotations

from typing import Any

import torch

from lockdec.encoders.configuration import VAEConfig, VQVAEConfig
from lockdec.encoders.vae import VAE
from lockdec.encoders.vqvae import VQVAE
from lockdec.modules.autoencoding import VariationalAutoencoding, VectorQuantisedAutoencoding
from tests.training.test_fit import adamw

SIZES: dict[str, Any] = {"resolution": 32, "widths": [8, 12], "blocks": 1, "channels": 6}


def test_the_loss_of_a_vae_is_the_negative_evidence_lower_bound_per_number() -> None:
    """With noise of variance kl_weight / 2 on pixels, up to a constant and the factor 1 / kl_weight."""
    torch.manual_seed(0)
    model, pictures = VAE(VAEConfig(**SIZES, vector=False)), torch.rand(2, 3, 32, 32)
    losses = VariationalAutoencoding(model, adamw(), 1, "stage", kl_weight=0.5, free_bits=0.0).eval().losses(pictures)
    squared = (model.pictures(model.posterior(pictures).mean) - pictures).square().sum((1, 2, 3)).mean()
    numbers = pictures[0].numel()
    torch.testing.assert_close(losses["reconstruction"], squared / numbers)
    torch.testing.assert_close(losses["loss"], (squared + 0.5 * losses["kl"]) / numbers)


def test_codes_follow_the_latents_in_training_alone() -> None:
    torch.manual_seed(0)
    model, pictures = VQVAE(VQVAEConfig(**SIZES, codes=16)), torch.rand(2, 3, 32, 32)
    module = VectorQuantisedAutoencoding(model, adamw(), 1, "stage", commitment=0.25)
    before = model.codebook.codes.clone()
    losses = module.eval().losses(pictures)
    assert model.codebook.codes.equal(before)
    latents = model.continuous(pictures)
    distance = (latents - model.latents(pictures)).square().mean()
    torch.testing.assert_close(losses["commitment"], distance)
    torch.testing.assert_close(losses["loss"], losses["reconstruction"] + 0.25 * distance)
    assert 1 <= losses["perplexity"].item() <= 16
    module.train().losses(pictures)
    assert not model.codebook.codes.equal(before)


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
