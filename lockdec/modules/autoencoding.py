"""Reconstruction through a bottleneck: how the autoencoders of pictures are pretrained."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor
from torch.nn import functional as F

from lockdec.encoders.autoencoder import Autoencoder, from_bytes
from lockdec.encoders.vae import VAE
from lockdec.encoders.vqvae import VQVAE
from lockdec.modules.objective import Measured, Objective
from lockdec.optimizers.optimization import OptimizerConfig
from lockdec.training.pixels import PixelBatch

Losses = dict[str, Tensor]


class Autoencoding(Objective):
    """Trains all of an autoencoder; a subclass adds the cost of its bottleneck.

    Logged is `loss` and what it is made of; `reconstruction` is the mean squared error of a pixel's colours, which go
    from 0 to 1.
    """

    def __init__(self, model: Autoencoder, optimizer: OptimizerConfig, steps: int, stage: str) -> None:
        super().__init__(stage, optimizer, steps)
        self.model = model

    @abstractmethod
    def losses(self, pictures: Tensor) -> Losses:
        """`loss`, to be minimised, and its parts, of a batch of pictures from 0 to 1."""

    def measure(self, batch: PixelBatch, batch_idx: int) -> Measured:
        return Measured(self.losses(from_bytes(batch)), len(batch))


class VariationalAutoencoding(Autoencoding):
    """Squared error and divergence from the prior, which is logged in nats per picture as `kl`.

    The validation loss takes the mean of each posterior, not a sample, so it draws nothing at random.

    Args:
        kl_weight, free_bits: see `lockdec.stages.pretrain_autoencoder.PretrainVAEConfig`.
    """

    model: VAE

    def __init__(
        self, model: VAE, optimizer: OptimizerConfig, steps: int, stage: str, kl_weight: float, free_bits: float
    ) -> None:
        super().__init__(model, optimizer, steps, stage)
        self.kl_weight, self.free_bits = kl_weight, free_bits

    def losses(self, pictures: Tensor) -> Losses:
        posterior = self.model.posterior(pictures)
        latents = posterior.draw() if self.training else posterior.mean
        reconstruction = F.mse_loss(self.model.pictures(latents), pictures)
        divergence = posterior.divergence()
        cells = divergence.shape[1]
        charged = divergence.mean(dim=(0, 1)).clamp(min=self.free_bits).sum() * cells
        loss = reconstruction + self.kl_weight * charged / pictures[0].numel()
        return {"loss": loss, "reconstruction": reconstruction, "kl": divergence.sum(dim=(1, 2)).mean()}


class VectorQuantisedAutoencoding(Autoencoding):
    """Squared error through the codes, and the latents' commitment to them; `perplexity` is how many are in use.

    Args:
        commitment: see `lockdec.stages.pretrain_autoencoder.PretrainVQVAEConfig`.
    """

    model: VQVAE

    def __init__(self, model: VQVAE, optimizer: OptimizerConfig, steps: int, stage: str, commitment: float) -> None:
        super().__init__(model, optimizer, steps, stage)
        self.commitment = commitment

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
        loss = reconstruction + self.commitment * commitment
        return {
            "loss": loss,
            "reconstruction": reconstruction,
            "commitment": commitment,
            "perplexity": book.perplexity(chosen),
        }
