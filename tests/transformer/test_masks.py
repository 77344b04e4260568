"""Masks are true where a query may attend, also as numbers that are added to scores."""

from __future__ import annotations

import jaxtyping
import pytest
import torch

from lockdec.transformer.masks import causal_mask, look_ahead_mask, mask_bias


def test_the_look_ahead_mask_ends_at_the_present() -> None:
    expected = [[True, True, True, False], [True, True, True, True]]
    assert look_ahead_mask(2, 4, torch.device("cpu")).tolist() == expected


def test_a_causal_mask_is_within_another_mask() -> None:
    mask = torch.tensor([[[True, False, True]], [[False, True, True]]])
    expected = [[[True, False, False], [True, False, True]], [[False, True, False], [False, True, True]]]
    assert causal_mask(mask, 2, 3, mask.device).tolist() == expected
    assert causal_mask(None, 2, 3, mask.device).tolist() == [[[True, True, False], [True, True, True]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_softmax_gives_nothing_to_what_the_bias_masks_and_never_nan(dtype: torch.dtype) -> None:
    mask = torch.tensor([[True, False, True], [False, False, False]])
    scores = torch.tensor([[3.0, 200.0, 3.0], [1.0, -50.0, 2.0]], dtype=dtype)
    weights = (scores + mask_bias(mask, dtype)).softmax(-1)
    assert weights[0].tolist() == [0.5, 0.0, 0.5]
    assert weights.isfinite().all()


def test_types_and_shapes_are_checked_here() -> None:
    """By the hook of pytest, whose absence no other test would notice."""
    with pytest.raises(jaxtyping.TypeCheckError, match="mask"):
        mask_bias(torch.zeros(2, 3), torch.float32)  # not booleans
