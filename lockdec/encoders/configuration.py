"""The sizes of the autoencoders as plain data. Imports no torch, so that a config schema can be built from it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from omegaconf import MISSING

from lockdec.data.drawings import MOST_SIDE
from lockdec.transformer.configuration import require, require_counts


@dataclass
class AutoencoderConfig:
    """A convolutional autoencoder of square pictures.

    Attributes:
        resolution: side of the pictures, in pixels.
        widths: channels after each halving of the side; the last one leaves the grid of latents.
        blocks: residual blocks at the grid, in the encoder and in the decoder.
        channels: of a latent.
    """

    resolution: int = MISSING
    widths: list[int] = MISSING
    blocks: int = MISSING
    channels: int = MISSING

    @property
    def grid(self) -> int:
        """Cells along each side of the grid."""
        return self.resolution >> len(self.widths)

    @property
    def least_parameters(self) -> int:
        """The weights of its convolutions, without biases, and two for each channel of a latent, if no more."""
        steps = sum(32 * before * after for before, after in pairwise([3, *self.widths]))  # 4 x 4, down and up
        last = self.widths[-1]
        return steps + self.blocks * 20 * last * max(1, last // 2) + 2 * self.channels  # 3 x 3 and 1 x 1, down and up

    def check(self, key: str) -> None:
        """Raise ConfigError, which names the key below `key`, if a value is out of range."""
        require_counts(key, resolution=self.resolution, channels=self.channels)
        require(self.resolution <= MOST_SIDE, f"{key}.resolution", self.resolution, f"use at most {MOST_SIDE} pixels")
        require(bool(self.widths) and min(self.widths) >= 1, f"{key}.widths", list(self.widths), "one or more counts")
        require(self.blocks >= 0, f"{key}.blocks", self.blocks, "must not be negative")
        step = 1 << len(self.widths)
        require(
            self.resolution % step == 0,
            f"{key}.resolution",
            self.resolution,
            f"use a multiple of {step}, since {len(self.widths)} widths halve it as often",
        )


@dataclass
class VAEConfig(AutoencoderConfig):
    """Sizes of a variational autoencoder.

    Attributes:
        vector: one latent for the whole picture instead of one for each cell of the grid.
    """

    vector: bool = MISSING


@dataclass
class VQVAEConfig(AutoencoderConfig):
    """Sizes of a vector-quantised autoencoder.

    Attributes:
        codes: the size of the codebook.
    """

    codes: int = MISSING

    @property
    def least_parameters(self) -> int:
        return super().least_parameters + self.codes * self.channels

    def check(self, key: str) -> None:
        super().check(key)
        require_counts(key, codes=self.codes)
