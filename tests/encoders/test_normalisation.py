"""Normalisation: by groups of channels, in chunks or at once, without amplifying channels that hardly vary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lockdec.encoders.normalisation import Normalisation
from lockdec.errors import ConfigError, StoreError
from lockdec.store.tensors import save_tensors
from tests.encoders.test_encoded import arrays


def test_each_group_of_channels_is_normalised_by_itself() -> None:
    states = torch.from_numpy(np.concatenate(arrays(200)))
    both = Normalisation.fit(["whiten", "standardise"], [states], [4, 2])(states)
    torch.testing.assert_close(both[:, :4], Normalisation.fit("whiten", [states[:, :4]])(states[:, :4]))
    torch.testing.assert_close(both[:, 4:], Normalisation.fit("standardise", [states[:, 4:]])(states[:, 4:]))
    left = Normalisation.fit(["none", "standardise"], [states], [4, 2])(states)
    assert left[:, :4].equal(states[:, :4])
    with pytest.raises(ConfigError, match="the states have 2 groups of channels"):
        Normalisation.fit(["whiten"] * 3, [states], [4, 2])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 40), st.sampled_from(["standardise", "whiten"]))
def test_fitting_in_chunks_is_fitting_at_once(seed: int, size: int, kind: str) -> None:
    states = torch.from_numpy(np.concatenate(arrays(20, seed)))
    whole, chunked = Normalisation.fit(kind, [states]), Normalisation.fit(kind, torch.split(states, size))
    torch.testing.assert_close(whole(states), chunked(states), atol=1e-3, rtol=1e-3)


def test_a_nearly_constant_channel_is_not_amplified() -> None:
    states = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    states[:, 3] = 5.0
    states[:, 4] = 1e-6 * states[:, 4]
    for kind in ("standardise", "whiten"):
        out = Normalisation.fit(kind, [states])(states)
        assert out.isfinite().all()
        assert out[:, 3:5].abs().max() < 0.01
        assert out[:, 0].std() > 0.9
    constant = torch.ones(10, 8)
    assert Normalisation.fit("standardise", [constant])(constant).abs().max() < 1e-3


@pytest.mark.parametrize("kind", ["none", "standardise", "whiten"])
def test_a_saved_normalisation_is_the_same(kind: str, tmp_path: Path) -> None:
    states = torch.from_numpy(np.concatenate(arrays(20)))
    fitted = Normalisation.fit(kind, [states])
    fitted.save(tmp_path / "normalisation.safetensors")
    assert torch.equal(Normalisation.load(tmp_path / "normalisation.safetensors")(states), fitted(states))


def test_what_differs_by_more_than_rounding_is_not_alike() -> None:
    states = torch.from_numpy(np.concatenate(arrays(20)))
    fitted = Normalisation.fit("whiten", [states])
    assert fitted.alike(Normalisation.fit("whiten", [states * (1 + 1e-6)]))
    for other in (Normalisation.fit("standardise", [states]), Normalisation.fit("whiten", [states * 1.01])):
        assert not fitted.alike(other)
    assert not fitted.alike(Normalisation.fit("whiten", [states[:, :2]]))


def test_other_tensors_are_no_normalisation(tmp_path: Path) -> None:
    save_tensors({"weight": torch.ones(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(StoreError, match=r"weights\.safetensors: not a stored normalisation"):
        Normalisation.load(tmp_path / "weights.safetensors")
