"""A variational autoencoder pretrained here on pictures: its posterior means are the states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lockdec.data.captions import Modality
from lockdec.encoders.autoencoder import Autoencoder, groups_of, open_autoencoder, to_cells, to_grid
from lockdec.encoders.configuration import VAEConfig
from lockdec.encoders.contract import Encoder, PretrainedHere

# A channel is active if its posterior means vary more than this over the pictures (Burda et al. 2016, section 5.1).
ACTIVE_VARIANCE = 0.01
_CELL = 32  # channels of a cell between the grid and a single latent
_LOG_VARIANCE = (-12.0, 6.0)  # beyond these bounds a step may overflow


class Posterior(NamedTuple):
    """A normal distribution for each channel of each latent."""

    mean: Float[Tensor, "b s channels"]
    log_variance: Float[Tensor, "b s channels"]

    def draw(self) -> Float[Tensor, "b s channels"]:
        """One sample, reparametrised so that gradients reach mean and variance (Kingma and Welling 2014, 2.4)."""
        return self.mean + torch.exp(0.5 * self.log_variance) * torch.randn_like(self.mean)

    def divergence(self) -> Float[Tensor, "b s channels"]:
        """The KL divergence from the standard normal prior, in nats (Kingma and Welling 2014, appendix B)."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance)


class VAE(Autoencoder):
    """A latent for each cell of a grid, or with `config.vector` a single one for the whole picture.

    Attributes:
        active: which channels depend on the picture; the others are set to zero in `latents`, since a normalisation
            could amplify their noise.
    """

    config: VAEConfig
    active: Bool[Tensor, " channels"]

    def __init__(self, config: VAEConfig) -> None:
        if config.vector:
            super().__init__(config, shrunk=_CELL, grown=_CELL)
            numbers = _CELL * config.grid**2
            self.join, self.spread = nn.Linear(numbers, 2 * config.channels), nn.Linear(config.channels, numbers)
        else:
            super().__init__(config, shrunk=2 * config.channels, grown=config.channels)
        self.register_buffer("active", torch.ones(config.channels, dtype=torch.bool))

    def posterior(self, pictures: Float[Tensor, "b 3 side side"]) -> Posterior:
        """The posterior distribution of the latents of these pictures."""
        grid = self.shrink(pictures)
        both = self.join(grid.flatten(1))[:, None] if self.config.vector else to_cells(grid)
        mean, log_variance = both.chunk(2, dim=-1)
        return Posterior(mean, log_variance.clamp(*_LOG_VARIANCE))

    def latents(self, pictures: Float[Tensor, "b 3 side side"]) -> Float[Tensor, "b s channels"]:
        return self.posterior(pictures).mean * self.active

    def pictures(self, latents: Float[Tensor, "b s channels"]) -> Float[Tensor, "b 3 side side"]:
        if self.config.vector:
            latents = self.spread(latents).reshape(len(latents), -1, _CELL)
        pictures: Tensor = self.grow(to_grid(latents, self.config.grid))
        return pictures


@dataclass(frozen=True)
class PretrainedVAE(PretrainedHere):
    """The encoder that the stage `pretrain_vae` trains.

    Attributes:
        position, hidden: see `AutoencoderEncoder`.
    """

    modality: ClassVar[Modality] = "image"
    position: bool
    hidden: bool = False
    stage: str = "pretrain_vae"

    def open(self, folder: Path) -> Encoder:
        return open_autoencoder(folder, VAE, VAEConfig, self.position, self.hidden)

    def groups_for(self, sizes: VAEConfig) -> tuple[int, ...]:
        return groups_of(sizes, self.position, self.hidden)
