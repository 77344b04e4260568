"""A decoder in bfloat16: which one is, and that it is unlocked without any change."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lockdec.transformer.fast import dtype_of, precision
from tests.transformer.tiny_transformers import (
    ENCODER_DIM,
    cross_attention_config,
    encoded_batch,
    force_open,
    locking_model,
    token_batch,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("asked", "stored", "units", "expected"),
    [
        ("float32", torch.bfloat16, True, torch.float32),
        ("bfloat16", torch.float32, False, torch.bfloat16),
        ("auto", torch.bfloat16, True, torch.bfloat16),
        ("auto", torch.bfloat16, False, torch.float32),
        ("auto", torch.float32, True, torch.float32),
        ("auto", torch.float16, True, torch.float32),
    ],
)
def test_auto_is_bfloat16_where_it_is_stored_and_multiplied_so(
    asked: str, stored: torch.dtype, units: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda _: units)
    assert dtype_of(asked, stored, CPU) == expected


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_cross_attention_stays_single_and_learns_in_a_decoder_of_half_precision(norm: str) -> None:
    model = locking_model(norm=norm).bfloat16()
    locked = model(token_batch())
    assert locked.dtype == torch.bfloat16
    model.attach(cross_attention_config(), ENCODER_DIM)
    model.unlock()
    assert torch.equal(model(token_batch(), encoded_batch()), locked)
    learns = model.cross_attention_parameters()
    assert {weight.dtype for weight in learns.values()} == {torch.float32}
    for weight in learns.values():
        nn.init.normal_(weight)
    model.freeze_decoder()
    torch.autograd.backward(model(token_batch(), encoded_batch()).float().square().mean())
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in learns.values())


@pytest.mark.parametrize("strategy", ["greedy", "beam"])
def test_it_generates(strategy: str) -> None:
    model = locking_model().bfloat16()
    model.attach(cross_attention_config(), ENCODER_DIM)
    force_open(model)
    model.unlock()
    tokens = model.generate(
        encoded_batch(), bos_id=1, eos_id=2, pad_id=0, max_new_tokens=5, strategy=strategy, prompt=[3, 4]
    )
    assert tokens.shape[0] == 3
