"""A vector-quantised autoencoder pretrained here on pictures: the codes it chooses for the cells are the states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lockdec.data.captions import Modality
from lockdec.encoders.autoencoder import (
    CONFIG,
    WEIGHTS,
    Autoencoder,
    AutoencoderEncoder,
    to_cells,
    to_grid,
)
from lockdec.encoders.configuration import VQVAEConfig
from lockdec.encoders.contract import Encoder, PretrainedHere
from lockdec.store.reading import read_dataclass
from lockdec.store.tensors import load_weights

_DECAY = 0.99  # of the moving averages, a step
_DEAD = 0.5  # cells a step, on average: a code chosen less often starts again elsewhere


class Codebook(nn.Module):
    """Codes that follow the latents choosing them (van den Oord et al. 2017, appendix A.1).

    Attributes:
        codes: each the mean of the latents that chose it, a moving average.
        usage: how many latents chose it, a moving average over steps.
    """

    codes: Float[Tensor, "n channels"]
    usage: Float[Tensor, " n"]

    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.randn(codes, channels))
        self.register_buffer("usage", torch.zeros(codes))  # all dead: the first step places them

    def nearest(self, latents: Float[Tensor, "b s channels"]) -> Int[Tensor, "b s"]:
        """The code closest to each latent."""
        # |x|^2 is the same for all codes.
        distances = self.codes.square().sum(1) - 2 * latents @ self.codes.T
        return distances.argmin(dim=-1)

    @torch.no_grad()
    def follow(self, latents: Float[Tensor, "b s channels"], chosen: Int[Tensor, "b s"]) -> None:
        """Move the codes a step towards the latents that chose them, and dead ones onto latents drawn by luck."""
        flat, count = latents.flatten(0, 1), len(self.codes)
        choices = F.one_hot(chosen.flatten(), count).to(flat)  # (b * s, n)
        with torch.autocast(flat.device.type, enabled=False):  # half precision would miscount
            sums = self.codes * self.usage[:, None] * _DECAY + choices.T @ flat * (1 - _DECAY)
        self.usage.mul_(_DECAY).add_(choices.sum(0), alpha=1 - _DECAY)
        self.codes.copy_(torch.where(self.usage[:, None] > 0, sums / self.usage[:, None].clamp(min=1e-12), self.codes))
        dead = self.usage < _DEAD
        elsewhere = flat[torch.randint(len(flat), (count,), device=flat.device)]
        self.codes.copy_(torch.where(dead[:, None], elsewhere, self.codes))
        self.usage.masked_fill_(dead, 1.0)

    def perplexity(self, chosen: Int[Tensor, "b s"]) -> Float[Tensor, ""]:
        """How many codes are in use: e to the entropy of the choices, from 1 to all."""
        shares = torch.bincount(chosen.flatten(), minlength=len(self.codes)) / chosen.numel()
        perplexity: Tensor = torch.special.entr(shares).sum().exp()
        return perplexity


class VQVAE(Autoencoder):
    """A code for each cell of a grid."""

    config: VQVAEConfig

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__(config, config.channels, config.channels)
        self.codebook = Codebook(config.codes, config.channels)

    def continuous(self, pictures: Float[Tensor, "b 3 side side"]) -> Float[Tensor, "b s channels"]:
        """The latents before each is replaced by its code."""
        return to_cells(self.shrink(pictures))

    def latents(self, pictures: Float[Tensor, "b 3 side side"]) -> Float[Tensor, "b s channels"]:
        return self.codebook.codes[self.codebook.nearest(self.continuous(pictures))]

    def pictures(self, latents: Float[Tensor, "b s channels"]) -> Float[Tensor, "b 3 side side"]:
        pictures: Tensor = self.grow(to_grid(latents, self.config.grid))
        return pictures


@dataclass(frozen=True)
class PretrainedVQVAE(PretrainedHere):
    """The encoder that the stage `pretrain_vqvae` makes.

    Attributes:
        position: see `AutoencoderEncoder`.
    """

    modality: ClassVar[Modality] = "image"
    position: bool
    stage: str = "pretrain_vqvae"

    def open(self, folder: Path) -> Encoder:
        model = VQVAE(read_dataclass(folder / CONFIG, VQVAEConfig))
        load_weights(model, folder / WEIGHTS)
        return AutoencoderEncoder(model, self.position)
