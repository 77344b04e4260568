"""Pictures of attention, for every kind of input: a grid, a class token apart, words, states, or that there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lockdec.encoders.contract import Encoder
from lockdec.encoders.efficientnet import EfficientNetLite0
from lockdec.encoders.features import Features
from lockdec.encoders.huggingface import HuggingFace
from lockdec.encoders.minilm import MiniLM
from lockdec.encoders.together import Together
from lockdec.encoders.vae import VAE
from lockdec.library.inputs import Given
from tests.encoders import checkpoints
from tests.encoders.kinds import autoencoder, mlm
from tests.play.conftest import captioner

PICTURE = Image.linear_gradient("L").resize((40, 40)).convert("RGB")


def shown(encoder: Encoder, given: Given) -> tuple[tuple[int, int], tuple[int, ...] | None, str, int]:
    """Of the attention of a caption: its shape, its grid, its figure, and how many words there are."""
    opened = captioner(encoder)
    [caption] = opened.caption([given])
    attention = caption.attention
    if attention.weights.shape[1]:
        torch.testing.assert_close(attention.weights.sum(1), torch.ones(len(caption.words)))
    return attention.shape, attention.grid, opened.figure(given, caption).html, len(caption.words)


@pytest.mark.parametrize("save", [checkpoints.vit, checkpoints.clip, checkpoints.dinov2])
def test_a_class_token_is_shown_apart(save: object, tmp_path: Path) -> None:
    assert callable(save)
    shape, grid, html, words = shown(HuggingFace(str(save(tmp_path / "checkpoint"))), PICTURE)
    assert words
    assert (shape, grid) == ((words, 17), (4, 4, 1))
    assert html.count("<svg") == words
    assert html.count('x="-1.5"') == 2 * words  # its square, and a frame around it
    assert "its class token, which belongs to no place" in html


def test_a_text_is_a_row_of_its_words() -> None:
    shape, grid, html, words = shown(mlm(), "ein mann")
    labels = mlm().labels("ein mann")
    assert labels is not None
    assert (shape, grid) == ((words, len(labels)), None)
    assert html.count('<th scope="col"') == len(labels)
    assert all(f">{label}</th>" in html for label in labels)
    assert MiniLM().labels("ein mann")


def test_states_of_an_array_are_numbered() -> None:
    shape, grid, html, words = shown(Features(dim=3), np.ones((5, 3), np.float32))
    assert (shape, grid) == ((words, 5), None)
    assert [f">{number}</th>" in html for number in range(1, 7)] == [True] * 5 + [False]


def test_several_encoders_have_no_grid_though_their_states_would_form_one() -> None:
    three = {f"{number}": EfficientNetLite0(64, layers=[10], grid=2) for number in range(4)}
    shape, grid, html, words = shown(Together(three), PICTURE)
    assert (shape, grid) == ((words, 16), None)
    assert "The 16 states of this picture form no grid" in html


def test_where_nothing_can_be_drawn_it_says_so(tmp_path: Path) -> None:
    pooled = HuggingFace(str(checkpoints.vit(tmp_path / "checkpoint")), "pooled")
    for encoder in (pooled, autoencoder(VAE, vector=True, position=False)):
        shape, grid, html, words = shown(encoder, PICTURE)
        assert (shape, grid) == ((words, 1), None)
        assert "one state for this input, and all attention goes to it: there is nothing to draw" in html
        assert "<svg" not in html
