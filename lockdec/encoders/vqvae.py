"""A vector-quantised autoencoder pretrained here on pictures: the codes of its grid cells are the states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lockdec.data.captions import Modality
from lockdec.encoders.autoencoder import Autoencoder, groups_of, open_autoencoder, to_cells, to_grid
from lockdec.encoders.configuration import VQVAEConfig
from lockdec.encoders.contract import Encoder, PretrainedHere

_DECAY = 0.99  # of the moving averages, per step
_DEAD = 0.5  # cells per step, on average: a code that is chosen less often is reinitialised


class Codebook(nn.Module):
    """Codes trained by moving averages of the latents assigned to them (van den Oord et al. 2017, appendix A.1).

    Attributes:
        codes: moving averages of the latents assigned to each code.
        usage: moving averages of the number of latents assigned to each code in a step.
    """

    codes: Float[Tensor, "n channels"]
    usage: Float[Tensor, " n"]

    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.randn(codes, channels))
        self.register_buffer("usage", torch.zeros(codes))  # all unused: the first step initialises them

    def nearest(self, latents: Float[Tensor, "b s channels"]) -> Int[Tensor, "b s"]:
        """The index of the code nearest to each latent."""
        # |x|^2 is the same for all codes.
        distances = self.codes.square().sum(1) - 2 * latents @ self.codes.T
        return distances.argmin(dim=-1)

    @torch.no_grad()
    def follow(self, latents: Float[Tensor, "b s channels"], chosen: Int[Tensor, "b s"]) -> None:
        """Move codes towards the latents assigned to them, and reinitialise unused codes with random latents."""
        flat, count = latents.flatten(0, 1), len(self.codes)
        choices = F.one_hot(chosen.flatten(), count).to(flat)  # (b * s, n)
        with torch.autocast(flat.device.type, enabled=False):  # half precision would round the counts
            sums = self.codes * self.usage[:, None] * _DECAY + choices.T @ flat * (1 - _DECAY)
        self.usage.mul_(_DECAY).add_(choices.sum(0), alpha=1 - _DECAY)
        self.codes.copy_(torch.where(self.usage[:, None] > 0, sums / self.usage[:, None].clamp(min=1e-12), self.codes))
        dead = self.usage < _DEAD
        elsewhere = flat[torch.randint(len(flat), (count,), device=flat.device)]
        self.codes.copy_(torch.where(dead[:, None], elsewhere, self.codes))
        self.usage.masked_fill_(dead, 1.0)

    def perplexity(self, chosen: Int[Tensor, "b s"]) -> Float[Tensor, ""]:
        """The effective number of codes: e to the entropy of their use, from 1 to the size of the codebook."""
        shares = torch.bincount(chosen.flatten(), minlength=len(self.codes)) / chosen.numel()
        perplexity: Tensor = torch.special.entr(shares).sum().exp()
        return perplexity


class VQVAE(Autoencoder):
    """A vector-quantised autoencoder with a code for each cell of a grid."""

    config: VQVAEConfig

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__(config, config.channels, config.channels)
        self.codebook = Codebook(config.codes, config.channels)

    def continuous(self, pictures: Float[Tensor, "b 3 side side"]) -> Float[Tensor, "b s channels"]:
        """The latents before quantisation."""
        return to_cells(self.shrink(pictures))

    def latents(self, pictures: Float[Tensor, "b 3 side side"]) -> Float[Tensor, "b s channels"]:
        return self.codebook.codes[self.codebook.nearest(self.continuous(pictures))]

    def pictures(self, latents: Float[Tensor, "b s channels"]) -> Float[Tensor, "b 3 side side"]:
        pictures: Tensor = self.grow(to_grid(latents, self.config.grid))
        return pictures


@dataclass(frozen=True)
class PretrainedVQVAE(PretrainedHere):
    """The encoder that the stage `pretrain_vqvae` trains.

    Attributes:
        position: see `AutoencoderEncoder`.
    """

    modality: ClassVar[Modality] = "image"
    position: bool
    stage: str = "pretrain_vqvae"

    def open(self, folder: Path) -> Encoder:
        return open_autoencoder(folder, VQVAE, VQVAEConfig, self.position)

    def groups_for(self, sizes: VQVAEConfig) -> tuple[int, ...]:
        return groups_of(sizes, self.position)
