"""The options of cross-attention: one number ties its sizes, and defaults stand in one place."""

from __future__ import annotations

import dataclasses

import pytest

from lockdec.config.checking import checked, plain
from lockdec.transformer.configuration import CrossAttentionConfig
from tests.conftest import composed


def test_the_dataclass_has_no_sizes_of_its_own_and_the_other_defaults_of_the_config() -> None:
    config = plain(composed().cross_attention)
    for field in dataclasses.fields(CrossAttentionConfig):
        if field.name in ("heads", "d_q", "d_k", "d_v"):
            assert field.default is dataclasses.MISSING
        else:
            assert config.pop(field.name) == field.default
    assert set(config) == {"heads", "d_q", "d_k", "d_v"}


@pytest.mark.parametrize("size", [1, 4, 32])
def test_one_number_ties_the_sizes(size: int) -> None:
    tied = composed("cross_attention=tied", f"cross_attention.d_k={size}")
    config = checked(tied).cross_attention
    assert (config.d_q, config.d_k, config.d_v) == (size, size, size)
    by_hand = composed(f"cross_attention.d_k={size}", f"cross_attention.d_v={size}")
    assert plain(tied.cross_attention) == plain(by_hand.cross_attention), "nothing else is in the artifact's key"


def test_queries_are_of_the_size_of_keys_where_not_given() -> None:
    config = checked(composed("cross_attention.d_k=3")).cross_attention
    assert (config.d_q, config.d_k, config.d_v) == (3, 3, 32)
    assert checked(composed("cross_attention.d_k=3", "cross_attention.d_q=5")).cross_attention.d_q == 5
