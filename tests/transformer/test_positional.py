"""Where a token stands, in its vector: sinusoids, learned positions and rotations."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lockdec.transformer.models import EncoderModel
from lockdec.transformer.positional import LearnedPositions, RotaryPositions, SinusoidalPositions, sinusoids
from tests.transformer.test_attention import normal
from tests.transformer.tiny_transformers import encoder_config


def test_sinusoids_are_those_of_the_paper() -> None:
    table = sinusoids(7, 6)
    for position in range(7):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert math.isclose(float(table[position, 2 * i]), math.sin(angle), abs_tol=1e-6)
            assert math.isclose(float(table[position, 2 * i + 1]), math.cos(angle), abs_tol=1e-6)


def test_embeddings_and_sinusoids_start_at_one_scale() -> None:
    torch.manual_seed(0)
    model = EncoderModel(encoder_config(d_model=256, heads=4, position="sinusoidal", vocab_size=500))
    scaled = model.embedding(torch.arange(16).unsqueeze(0)) - sinusoids(16, 256)
    assert 0.9 < float(scaled.detach().std()) < 1.1


def test_rotary_positions_turn_pairs_as_complex_numbers() -> None:
    d, theta = 6, 50.0
    rotary, x = RotaryPositions(12, d, theta).double(), normal(2, 3, 5, d)
    pairs = torch.complex(x[..., : d // 2], x[..., d // 2 :])
    speed = theta ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    for start in (0, 4):
        angle = torch.arange(start, start + 5, dtype=torch.float64).outer(speed)
        turned = pairs * torch.polar(torch.ones_like(angle), angle)
        expected = torch.cat((turned.real, turned.imag), dim=-1)
        torch.testing.assert_close(rotary(x, start), expected, atol=1e-5, rtol=0)


@settings(max_examples=20, deadline=None)
@given(i=st.integers(0, 9), j=st.integers(0, 9), shift=st.integers(0, 10))
def test_rotary_scores_depend_on_distance_only(i: int, j: int, shift: int) -> None:
    rotary, query, key = (
        RotaryPositions(20, 4),
        normal(1, 1, 1, 4).float(),
        normal(1, 1, 1, 4, seed=1).float(),
    )
    scores = [(rotary(query, i + k) * rotary(key, j + k)).sum() for k in (0, shift)]
    torch.testing.assert_close(scores[0], scores[1], atol=1e-4, rtol=0)


def test_only_a_share_of_the_channels_is_rotated() -> None:
    """The first ones, as a head of that size would be (GPT-NeoX)."""
    x = normal(2, 3, 5, 8).float()
    turned = RotaryPositions(12, 8, share=0.25)(x, 4)
    assert torch.equal(turned[..., 2:], x[..., 2:])
    assert torch.equal(turned[..., :2], RotaryPositions(12, 2)(x[..., :2], 4))


@pytest.mark.parametrize(
    "positions",
    [
        lambda x, start: LearnedPositions(12, 6)(x, start),
        lambda x, start: SinusoidalPositions(12, 6)(x, start),
        lambda x, start: RotaryPositions(12, 6)(x.unsqueeze(1), start).squeeze(1),
    ],
    ids=["learned", "sinusoidal", "rotary"],
)
def test_a_part_of_a_sequence_gets_the_positions_it_has_in_the_whole(
    positions: Callable[[Tensor, int], Tensor],
) -> None:
    x, places = normal(2, 9, 6).float(), []
    for start in (0, 4):
        torch.manual_seed(0)
        places.append(positions(x[:, start:], start))
    torch.testing.assert_close(places[0][:, 4:], places[1])
    torch.manual_seed(0)
    assert not torch.allclose(positions(x[:, 4:], 0), places[1]), "other positions give other vectors"
