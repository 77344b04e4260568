"""The sizes of the autoencoders: what follows from them, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest

from lockdec.encoders.configuration import VAEConfig, VQVAEConfig
from lockdec.encoders.vae import VAE
from lockdec.errors import ConfigError

SIZES: dict[str, Any] = {"resolution": 32, "widths": [8, 12], "blocks": 1, "channels": 6}


def test_each_width_halves_the_side() -> None:
    assert VAEConfig(**SIZES, vector=False).grid == 8
    assert VAEConfig(**SIZES | {"widths": [4, 4, 4, 4, 4]}, vector=False).grid == 1


def test_the_size_of_the_codebook_is_checked_beside_the_others() -> None:
    VQVAEConfig(**SIZES, codes=1).check("pretrain_vqvae.model")
    with pytest.raises(ConfigError, match=r"pretrain_vqvae\.model\.codes=0: use a whole number of at least 1"):
        VQVAEConfig(**SIZES, codes=0).check("pretrain_vqvae.model")
    with pytest.raises(ConfigError, match=r"pretrain_vqvae\.model\.channels=0"):
        VQVAEConfig(**SIZES | {"channels": 0}, codes=1).check("pretrain_vqvae.model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 30}, r"resolution=30: use a multiple of 4, since 2 widths halve it as often"),
        ({"resolution": 2**30}, "resolution=1073741824: use at most 8000 pixels"),
        ({"widths": []}, r"widths=\[\]: one or more counts"),
        ({"channels": 0}, "channels=0"),
        ({"blocks": -1}, "blocks=-1: must not be negative"),
    ],
)
def test_impossible_sizes_are_refused_by_their_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"pretrain_vae\.model\.{message}"):
        VAEConfig(**SIZES | changes, vector=False).check("pretrain_vae.model")


@pytest.mark.parametrize("widths", [[8], [8, 16], [12, 5, 3]])
@pytest.mark.parametrize("blocks", [0, 3])
def test_an_autoencoder_has_at_least_as_many_weights_as_its_config_says(widths: list[int], blocks: int) -> None:
    config = VAEConfig(resolution=32, widths=widths, blocks=blocks, channels=2, vector=False)
    weights = sum(weight.numel() for weight in VAE(config).parameters())
    assert 0.7 * weights < config.least_parameters <= weights
