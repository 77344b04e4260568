"""Reconstruction through a bottleneck: how the autoencoders of pictures are pretrained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from lockdec.encoders.autoencoder import Autoencoder, from_bytes
from lockdec.encoders.vae import VAE
from lockdec.encoders.vqvae import VQVAE
from lockdec.modules.configuration import PretrainAutoencoderConfig, PretrainVAEConfig, PretrainVQVAEConfig
from lockdec.optimizers import optimization
from lockdec.training.pixels import PixelBatch
from lockdec.training.watching import is_logged

Losses = dict[str, Tensor]


class Autoencoding(L.LightningModule, ABC):
    """Trains all of an autoencoder; a subclass says what its bottleneck costs.

    Logged is `loss` and what it is made of; `reconstruction` is the mean squared error of a pixel's colours, which go
    from 0 to 1.

    Args:
        stage: the prefix of what is logged.
    """

    def __init__(self, model: Autoencoder, config: PretrainAutoencoderConfig, stage: str) -> None:
        super().__init__()
        self.model, self.settings, self.stage = model, config, stage

    @abstractmethod
    def losses(self, pictures: Tensor) -> Losses:
        """`loss`, to be minimised, and its parts, of a batch of pictures from 0 to 1."""

    def training_step(self, batch: PixelBatch, batch_idx: int) -> Tensor:
        losses = self.losses(from_bytes(batch))
        self.log_dict({f"{self.stage}/{name}": value for name, value in losses.items()}, batch_size=len(batch))
        return losses["loss"]

    def validation_step(self, batch: PixelBatch, batch_idx: int) -> None:
        losses = self.losses(from_bytes(batch))
        self.log_dict({f"{self.stage}/val_{name}": value for name, value in losses.items()}, batch_size=len(batch))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if is_logged(self.trainer):
            self.log(f"{self.stage}/learning_rate", optimizer.param_groups[0]["lr"])

    def configure_optimizers(self) -> Any:
        return optimization.configure(self.parameters(), self.settings.optimizer, self.settings.steps)


class VariationalAutoencoding(Autoencoding):
    """Squared error and divergence from the prior, which is logged in nats per picture as `kl`.

    The validation loss takes the mean of each posterior, not a sample, so it needs no luck.
    """

    model: VAE
    settings: PretrainVAEConfig

    def losses(self, pictures: Tensor) -> Losses:
        posterior = self.model.posterior(pictures)
        latents = posterior.draw() if self.training else posterior.mean
        reconstruction = F.mse_loss(self.model.pictures(latents), pictures)
        divergence = posterior.divergence()
        cells = divergence.shape[1]
        charged = divergence.mean(dim=(0, 1)).clamp(min=self.settings.free_bits).sum() * cells
        loss = reconstruction + self.settings.kl_weight * charged / pictures[0].numel()
        return {"loss": loss, "reconstruction": reconstruction, "kl": divergence.sum(dim=(1, 2)).mean()}


class VectorQuantisedAutoencoding(Autoencoding):
    """Squared error through the codes, and the latents' commitment to them; `perplexity` is how many are in use."""

    model: VQVAE
    settings: PretrainVQVAEConfig

    def losses(self, pictures: Tensor) -> Losses:
        book = self.model.codebook
        latents = self.model.continuous(pictures)
        chosen = book.nearest(latents.detach())
        codes = book.codes[chosen]
        commitment = F.mse_loss(latents, codes)
        # The gradient of the codes goes to the latents that chose them (van den Oord et al. 2017, 3.2).
        reconstruction = F.mse_loss(self.model.pictures(latents + (codes - latents).detach()), pictures)
        if self.training:
            book.follow(latents.detach().float(), chosen)
        loss = reconstruction + self.settings.commitment * commitment
        return {
            "loss": loss,
            "reconstruction": reconstruction,
            "commitment": commitment,
            "perplexity": book.perplexity(chosen),
        }
