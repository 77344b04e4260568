"""Sampling draws as likely as the model says, from as few tokens as it is told to."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lockdec.transformer.configuration import GenerationConfig
from lockdec.transformer.decoding.sampling import draw
from tests.transformer.tiny_transformers import (
    BOS,
    EOS,
    IDS,
    PAD,
    VOCAB,
    captioner,
    encoded_batch,
)


def test_the_narrowest_choices_are_greedy() -> None:
    model, encoded = captioner(), encoded_batch(rows=4)
    greedy = model.generate(encoded, **IDS, max_new_tokens=12)
    narrow: tuple[dict[str, Any], ...] = (
        {"strategy": "top_k", "top_k": 1},
        {"strategy": "nucleus", "top_p": 1e-6},
        {"strategy": "nucleus", "top_p": 1.0, "temperature": 1e-4},
        {"strategy": "beam", "beams": 1},
    )
    for options in narrow:
        assert torch.equal(model.generate(encoded, **IDS, max_new_tokens=12, **options), greedy), options


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    ("options", "kept"),
    [({"strategy": "nucleus", "top_p": 1.0}, VOCAB), ({"strategy": "top_k", "top_k": 4}, 4)],
)
def test_tokens_are_drawn_as_often_as_they_are_likely(options: dict[str, Any], kept: int, mixed: bool) -> None:
    model, draws = captioner(), 20_000
    one = encoded_batch(rows=1)
    crowd = one.index(torch.zeros(draws, dtype=torch.long))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        first = model.generate(crowd, **IDS, max_new_tokens=1, generator=torch.Generator().manual_seed(0), **options)
    expected = model(torch.tensor([[BOS]]), one)[0, -1].softmax(-1)
    floor = expected.sort(descending=True).values[kept - 1]
    expected = expected.where(expected >= floor, 0.0)
    expected = expected / expected.sum()
    seen = torch.bincount(first.flatten(), minlength=VOCAB) / draws
    deviation = (expected * (1 - expected) / draws).sqrt()
    assert ((seen - expected).abs() <= 4.5 * deviation + (0.002 if mixed else 0.0)).all()


@pytest.mark.parametrize(
    ("options", "noise", "token"),
    [
        ({"strategy": "nucleus", "top_p": 1.0}, [0.0, 0.49, 0.51, 0.79, 0.81, 0.99], [2, 2, 0, 0, 1, 1]),
        ({"strategy": "nucleus", "top_p": 0.6}, [0.0, 0.62, 0.63, 0.99], [2, 2, 0, 0]),  # 0.5 of the 0.8 that are kept
        ({"strategy": "nucleus", "top_p": 0.4}, [0.0, 0.99], [2, 2]),
        ({"strategy": "top_k", "top_k": 2}, [0.0, 0.62, 0.63, 0.99], [2, 2, 0, 0]),
        ({"strategy": "top_k", "top_k": 9}, [0.49, 0.51, 0.99], [2, 0, 1]),
        ({"strategy": "top_k", "top_k": 3, "temperature": 0.5}, [0.65, 0.66, 0.89, 0.9], [2, 0, 0, 1]),  # 25 : 9 : 4
    ],
)
def test_noise_falls_among_the_likeliest_tokens(options: dict[str, Any], noise: list[float], token: list[int]) -> None:
    """Their probabilities are 0.3, 0.2 and 0.5."""
    logits = torch.tensor([0.3, 0.2, 0.5]).log().expand(len(noise), -1)
    assert draw(logits, torch.tensor(noise), GenerationConfig(**options)).tolist() == token


def test_a_row_that_ends_is_padded_and_the_others_go_on() -> None:
    generated = captioner(1).generate(encoded_batch(rows=4, seed=1), **IDS, max_new_tokens=8)
    ended = (generated == EOS).any(1)
    assert ended.any()
    assert not ended.all()
    for row in generated[ended].tolist():
        assert set(row[row.index(EOS) + 1 :]) <= {PAD}
