"""Attention statistics: against their definition, token by token, and at values known beforehand."""

from __future__ import annotations

import math

import pytest
import torch

from lockdec.evaluation.attention_statistics import attention_statistics, gates
from lockdec.transformer.models import Encoded, LockingDecoderModel
from tests.transformer.tiny_transformers import (
    ENCODER_DIM,
    cross_attention_config,
    encoded_batch,
    force_open,
    locking_model,
    token_batch,
)

EOS = 2


def attached(**changes: object) -> LockingDecoderModel:
    model = locking_model()
    model.attach(cross_attention_config(**changes), ENCODER_DIM)
    force_open(model)
    model.unlock()
    return model


def tokens_with_padding() -> torch.Tensor:
    """Three captions of 6, 4 and 2 tokens, each with its end, then padding (0)."""
    tokens = token_batch(rows=3, length=7).clamp(min=3)
    for row, end in enumerate((6, 4, 2)):
        tokens[row, end], tokens[row, end + 1 :] = EOS, 0
    return tokens


def test_equal_states_get_uniform_attention() -> None:
    encoded = encoded_batch()
    same = Encoded(torch.ones_like(encoded.states), encoded.mask)
    found = attention_statistics(attached(), tokens_with_padding(), same, EOS)
    assert found["attention_entropy"] == pytest.approx(1.0, abs=1e-6)


def test_entropy_and_norm_are_means_over_real_tokens_heads_and_layers() -> None:
    model, tokens, encoded = attached(), tokens_with_padding(), encoded_batch()
    with torch.inference_mode():
        layers = model.attention_maps(tokens[:, :-1], encoded)
    by_layer: list[tuple[float, float]] = []
    for layer in layers:
        entropies, ratios = [], []
        for row, length in enumerate((6, 4, 2)):
            states = int(encoded.mask[row].sum())
            for position in range(length):
                for head in layer.weights[row, :, position]:
                    weights = [float(weight) for weight in head if weight > 0]
                    entropies.append(-sum(w * math.log(w) for w in weights) / math.log(states))
                ratios.append(float(layer.cross_norm[row, position] / layer.residual_norm[row, position]))
        by_layer.append((sum(entropies) / len(entropies), sum(ratios) / len(ratios)))
    found = attention_statistics(model, tokens, encoded, EOS)
    assert found["attention_entropy"] == pytest.approx(sum(e for e, _ in by_layer) / len(by_layer), rel=1e-5)
    assert found["cross_to_residual_norm"] == pytest.approx(sum(r for _, r in by_layer) / len(by_layer), rel=1e-5)
    assert found["attention_entropy"] < 1


def test_gates_are_named_by_layer() -> None:
    gated = attached(unlock="tanh_gate")
    assert gates(gated).keys() == {"gate/0", "gate/1"}
    assert gates(attached(unlock="zero_output")) == {}
