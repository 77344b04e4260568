"""Packing keeps every real position, in order, and next to no padding."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from lockdec.transformer.fast.packing import MULTIPLE, Packing


@given(st.lists(st.integers(0, 7), min_size=1, max_size=6))
def test_packed_positions_are_the_real_ones_in_order(lengths: list[int]) -> None:
    real = torch.arange(7) < torch.tensor(lengths)[:, None]
    x, packing, count = torch.randn(len(lengths), 7, 3), Packing(real), sum(lengths)
    packed = packing.pack(x)
    assert torch.equal(packed[0, :count], x[real])
    assert packed.shape[1] == count + packing.filling
    assert packing.filling == min(-count % MULTIPLE, 7 * len(lengths) - count)
    unpacked = packing.unpack(packed)
    assert torch.equal(unpacked[real], x[real])
    assert int(unpacked.any(-1).sum()) == count + packing.filling, "zeros at the padding that was left out"
