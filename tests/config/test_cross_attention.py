"""The options of `cross_attention` that set several sizes at once."""

from __future__ import annotations

import pytest

from lockdec.config.schema import checked
from tests.conftest import composed


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 32])
def test_tied_sizes_are_equal(size: int) -> None:
    config = checked(composed(f"cross_attention=tied_{size}")).cross_attention
    assert (config.d_q, config.d_k, config.d_v) == (size, size, size)
