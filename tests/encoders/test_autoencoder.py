"""What the autoencoders share: pictures as numbers, grids as cells, and where a cell is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lockdec.encoders.autoencoder import AutoencoderEncoder, from_bytes, save_autoencoder, to_cells, to_grid
from lockdec.encoders.configuration import VAEConfig, VQVAEConfig
from lockdec.encoders.pictures import positions
from lockdec.encoders.vae import VAE, PretrainedVAE
from lockdec.encoders.vqvae import VQVAE, PretrainedVQVAE
from lockdec.errors import DataError
from tests.encoders.kinds import drawings

SIZES: dict[str, Any] = {"resolution": 32, "widths": [8, 12], "blocks": 1, "channels": 6}


def vae(vector: bool = False) -> VAE:
    torch.manual_seed(0)
    return VAE(VAEConfig(**SIZES, vector=vector))


def test_cells_are_the_grid_row_by_row() -> None:
    grid = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    cells = to_cells(grid)
    assert cells.shape == (2, 16, 3)
    assert cells[1, 4 * 2 + 3].equal(grid[1, :, 2, 3])
    assert to_grid(cells, 4).equal(grid)


def test_a_cell_of_the_latents_sees_its_part_of_the_picture() -> None:
    """With no other way than convolutions of a limited reach, a far corner cannot change a cell."""
    model, picture = vae().eval(), torch.rand(1, 3, 32, 32)
    other = picture.clone()
    other[..., 0, 0] = 1 - other[..., 0, 0]
    changed = (model.latents(picture) != model.latents(other)).any(-1).reshape(8, 8)
    assert changed[0, 0]
    assert not changed[4:].any()
    assert not changed[:, 4:].any()


def test_positions_are_appended_to_the_states_and_a_single_state_is_in_the_middle() -> None:
    inputs = drawings()[:2]
    plain, placed = (AutoencoderEncoder(vae(), position).encode(inputs).states for position in (False, True))
    assert placed[..., :6].equal(plain)
    assert placed[1, :, 6:].equal(positions(8).flatten(0, 1))
    single = AutoencoderEncoder(vae(vector=True), position=True)
    assert (single.groups, single.dim) == ((6, 5), 11)
    assert not single.encode(inputs).states[..., 6:].any()


def test_inputs_are_resized_to_the_resolution() -> None:
    picture = Image.new("L", (50, 20), 51)
    pixels = AutoencoderEncoder(vae(), position=False).preprocess([picture])
    assert pixels.shape == (1, 3, 32, 32)
    torch.testing.assert_close(pixels, torch.full_like(pixels, 0.2))
    with pytest.raises(DataError, match="VAE reads images, not str"):
        AutoencoderEncoder(vae(), position=False).preprocess(["a picture"])


def test_a_saved_autoencoder_gives_the_same_states(tmp_path: Path) -> None:
    torch.manual_seed(0)
    models = (vae(), VQVAE(VQVAEConfig(**SIZES, codes=16)))
    for model, pretrained in zip(models, (PretrainedVAE(True), PretrainedVQVAE(True)), strict=True):
        save_autoencoder(model, tmp_path)
        states = AutoencoderEncoder(model, position=True).encode(drawings()).states
        assert pretrained.open(tmp_path).encode(drawings()).states.equal(states)


def test_bytes_become_numbers_from_0_to_1() -> None:
    batch = torch.tensor([0, 51, 204, 255], dtype=torch.uint8).reshape(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert from_bytes(batch)[0, 0].flatten().tolist() == pytest.approx([0, 0.2, 0.8, 1])
