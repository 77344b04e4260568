from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.encoders.array_encoder import Scaled


def test_an_encoder_is_frozen_though_its_class_forgot_to() -> None:
    encoder = Scaled(3)
    assert encoder.frozen
    assert not encoder.training
    assert not encoder.dropout.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_an_encoder_stays_frozen_whatever_is_asked() -> None:
    encoder = Scaled(3).train().requires_grad_(True)
    holder = torch.nn.ModuleList([encoder]).train()
    assert holder.training
    assert not encoder.training
    assert not encoder.dropout.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_states_can_take_part_in_training() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    states = Scaled(3).encode([np.ones((2, 3), np.float32)]).states
    (gradient,) = torch.autograd.grad((states * weight).sum(), [weight])
    assert gradient.tolist() == [2, 2, 2]
    assert not states.requires_grad


def test_the_fingerprint_is_of_weights_and_settings() -> None:
    same = {Scaled(3).fingerprint, Scaled(3).fingerprint}
    others = {Scaled(3, weight=2.0).fingerprint, Scaled(3, offset=1.0).fingerprint}
    assert len(same) == 1
    assert len(same | others) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_fingerprint_sees_every_dtype(dtype: torch.dtype) -> None:
    assert Scaled(3).to(dtype).fingerprint != Scaled(3).fingerprint


def test_the_smallest_change_of_a_weight_changes_the_fingerprint() -> None:
    encoder = Scaled(3)
    before = encoder.fingerprint
    encoder.weight.copy_(torch.nextafter(encoder.weight, torch.tensor(2.0)))
    assert encoder.fingerprint != before
