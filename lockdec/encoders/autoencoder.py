"""What the two convolutional autoencoders share: pictures are encoded as a grid of latents and decoded from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lockdec.data.captions import Input, Modality
from lockdec.encoders.configuration import AutoencoderConfig
from lockdec.encoders.contract import Encoder
from lockdec.encoders.pictures import POSITION, pixels, positions
from lockdec.store.reading import read_dataclass
from lockdec.store.tensors import load_module, save_tensors
from lockdec.store.writing import write_json
from lockdec.transformer.encoded import Encoded

CONFIG, WEIGHTS = "encoder.json", "encoder.safetensors"
Sizes = TypeVar("Sizes", bound=AutoencoderConfig)


class Autoencoder(nn.Module, ABC):
    """Strided convolutions down to the grid of latents, transposed convolutions back up, residual blocks at the grid.

    Args:
        config: its sizes.
        shrunk: output channels of `shrink` for each cell of the grid.
        grown: input channels of `grow` for each cell of the grid.
    """

    def __init__(self, config: AutoencoderConfig, shrunk: int, grown: int) -> None:
        super().__init__()
        self.config = config
        widths = [3, *config.widths]
        down: list[nn.Module] = []
        for before, after in pairwise(widths):
            down += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.GELU()]
        up: list[nn.Module] = [nn.Conv2d(grown, widths[-1], 1)]
        down += [Residual(widths[-1]) for _ in range(config.blocks)]
        up += [Residual(widths[-1]) for _ in range(config.blocks)]
        for before, after in pairwise(reversed(widths)):
            up += [nn.GELU(), nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)]
        self.shrink = nn.Sequential(*down, nn.Conv2d(widths[-1], shrunk, 1))
        self.grow = nn.Sequential(*up, nn.Sigmoid())

    def hidden(self, pictures: Float[Tensor, "b 3 side side"]) -> Float[Tensor, "b s channels"]:
        """The cells of the grid before they are made latents: as many channels as the last of the widths."""
        return to_cells(self.shrink[:-1](pictures))

    @abstractmethod
    def latents(self, pictures: Float[Tensor, "b 3 side side"]) -> Float[Tensor, "b s channels"]:
        """The latents of pictures, without sampling; the cells are in row order."""

    @abstractmethod
    def pictures(self, latents: Float[Tensor, "b s channels"]) -> Float[Tensor, "b 3 side side"]:
        """The pictures decoded from latents, from 0 to 1."""


class Residual(nn.Module):
    """x + W2 g(W1 g(x)): a 3 x 3 convolution to half the channels, and one of 1 x 1 back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = max(1, width // 2)
        self.inner = nn.Sequential(
            nn.GELU(), nn.Conv2d(width, narrow, 3, padding=1), nn.GELU(), nn.Conv2d(narrow, width, 1)
        )

    def forward(self, x: Float[Tensor, "b width h w"]) -> Float[Tensor, "b width h w"]:
        inner: Tensor = self.inner(x)
        return x + inner


def to_cells(grid: Float[Tensor, "b c h w"]) -> Float[Tensor, "b s c"]:
    """The cells of a grid, in row order."""
    return grid.flatten(2).transpose(1, 2)


def to_grid(cells: Float[Tensor, "b s c"], side: int) -> Float[Tensor, "b c side side"]:
    """The grid with these cells: the inverse of `to_cells`."""
    return cells.transpose(1, 2).reshape(len(cells), -1, side, side).contiguous(memory_format=torch.channels_last)


def from_bytes(batch: UInt8[Tensor, "b 3 side side"]) -> Float[Tensor, "b 3 side side"]:
    """Pixels from 0 to 1."""
    return batch.float() / 255


class AutoencoderEncoder(Encoder):
    """The latents of a pretrained autoencoder as states.

    Args:
        position: whether to append the position of the cell to each state: x, y, x^2, y^2 and xy, from -1 to 1.
        hidden: whether states are what the latents are made of, before the bottleneck.
    """

    modality: Modality = "image"

    def __init__(self, model: Autoencoder, position: bool, hidden: bool = False) -> None:
        super().__init__()
        self.model, self.position, self.hidden = model, position, hidden
        self.groups = groups_of(model.config, position, hidden)
        self.dim = sum(self.groups)

    @property
    def settings(self) -> Mapping[str, Any]:
        kind, sizes = type(self.model).__name__, asdict(self.model.config)
        settings = {"kind": kind, "sizes": sizes, "position": self.position, "scale": "x / 255"}
        return settings | ({"hidden": True} if self.hidden else {})  # older fingerprints stay what they are

    def preprocess(self, inputs: Sequence[Input]) -> Float[Tensor, "b 3 side side"]:
        """Pixels from 0 to 1.

        Raises:
            DataError: an input is not an image.
        """
        return from_bytes(pixels(inputs, self.model.config.resolution, type(self.model).__name__))

    def forward(self, batch: Float[Tensor, "b 3 side side"]) -> Encoded:
        """One state per latent, or per cell of the grid; no state is masked."""
        states = self.model.hidden(batch) if self.hidden else self.model.latents(batch)
        if self.position:
            # A single latent for the whole picture is placed in its middle.
            side = self.model.config.grid if states.shape[1] > 1 else 1
            places = positions(side).flatten(0, 1).to(states)
            states = torch.cat([states, places.expand(len(states), -1, -1)], dim=-1)
        return Encoded(states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device))


def groups_of(sizes: AutoencoderConfig, position: bool, hidden: bool = False) -> tuple[int, ...]:
    """The channels of a latent or of a hidden state, and where it is appended, those of its position."""
    return (sizes.widths[-1] if hidden else sizes.channels, *([POSITION] if position else []))


def save_autoencoder(model: Autoencoder, folder: Path) -> None:
    """Write the sizes and weights of the model."""
    write_json(folder / CONFIG, asdict(model.config))
    save_tensors(model.state_dict(), folder / WEIGHTS)


def open_autoencoder(
    folder: Path, model: Callable[[Sizes], Autoencoder], sizes: type[Sizes], position: bool, hidden: bool = False
) -> AutoencoderEncoder:
    """The encoder that `save_autoencoder` has written.

    Args:
        model, sizes: the class of the autoencoder, and that of its config.
        position, hidden: see `AutoencoderEncoder`.

    Raises:
        ConfigError: its sizes are impossible.
        StoreError: a file is missing or damaged.
    """
    config = read_dataclass(folder / CONFIG, sizes)
    config.check(f"{folder / CONFIG}: encoder")
    return AutoencoderEncoder(load_module(lambda: model(config), folder / WEIGHTS), position, hidden)
