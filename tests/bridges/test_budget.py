"""A number of parameters chooses the nearest size there is."""

from __future__ import annotations

import pytest

from lockdec.bridges.budget import BEYOND, Size, bridge_size, cross_attention_size, nearest_size, sized
from lockdec.bridges.prefix import LinearPrefix, MLPPrefix
from lockdec.bridges.resampler import Resampler
from lockdec.bridges.tuning import Full, LoRA
from lockdec.errors import ConfigError
from lockdec.transformer.bridge import Bridge
from lockdec.transformer.plugs import PluggableModel
from tests.transformer.tiny_transformers import ENCODER_DIM, cross_attention_config, locking_model


@pytest.mark.parametrize(
    ("wanted", "value", "had"),
    [(106, 1, 107), (107, 1, 107), (130, 4, 128), (500, 57, 499), (498, 57, 499), (503, 58, 506)],
)
def test_the_nearest_size_is_chosen(wanted: int, value: int, had: int) -> None:
    found = nearest_size("rank", wanted, lambda rank: 100 + 7 * rank)
    assert (found.value, found.had, found.wanted) == (value, had, wanted)
    assert bool(found.coarse) == (abs(had - wanted) > 0.02 * wanted)


def test_what_is_between_two_sizes_is_said_and_what_is_beyond_them_refused() -> None:
    found = nearest_size("d_v", 250, lambda d_v: 100 * d_v, most=3)
    assert found == Size("d_v", 2, 250, 200, "d_v=2 gives 200, d_v=3 gives 300, and nothing is between them")
    with pytest.raises(ConfigError, match=r"^bridge\.parameters=97: with d_v=1, the smallest, there are 100 already$"):
        nearest_size("d_v", 97, lambda d_v: 100 * d_v)
    with pytest.raises(ConfigError, match=r"^bridge\.parameters=310: with d_v=3, the largest, there are only 300$"):
        nearest_size("d_v", 310, lambda d_v: 100 * d_v, most=3)


def formula(bridge: Bridge) -> int:
    """The parameters of a map from 10 numbers to 2 embeddings of 12, counted by hand."""
    if isinstance(bridge, LinearPrefix) and bridge.rank is not None:
        return 10 * bridge.rank + bridge.rank * 24 + 24
    assert isinstance(bridge, MLPPrefix)
    assert bridge.width is not None
    return 10 * bridge.width + bridge.width + bridge.width * 24 + 24


@pytest.mark.parametrize("bridge", [LinearPrefix(length=2), MLPPrefix(length=2)], ids=lambda bridge: bridge.kind)
@pytest.mark.parametrize("wanted", [196, 330])
def test_the_size_of_a_bridge_follows_from_its_parameters(bridge: Bridge, wanted: int) -> None:
    model, config = locking_model(), cross_attention_config()
    found, _, size = sized(bridge, config, wanted, model, ENCODER_DIM)
    assert found is not None
    assert size is not None
    assert formula(found) == size.had
    assert abs(size.had - wanted) <= 18  # half a step of 34 or 35
    found.draw(model, ENCODER_DIM)
    assert sum(weight.numel() for weight in found.parameters()) == size.had
    assert found.settings == bridge.settings | {found.sized_by: size.value}


def test_the_largest_rank_is_that_of_the_full_matrix() -> None:
    with pytest.raises(ConfigError, match=r"with bridge\.rank=10, the largest, there are only 364$"):
        sized(LinearPrefix(length=2), cross_attention_config(), 500, locking_model(), ENCODER_DIM)


def test_cross_attention_is_sized_by_its_values() -> None:
    model, config = locking_model(), cross_attention_config()
    here = 2 * (2 * (12 * 3 + 10 * 2 + 3 * 2))  # two layers of two heads: queries, keys and the map between them
    each = 2 * (2 * (10 + 12))  # a channel of values and its way out
    assert cross_attention_size(config, model, ENCODER_DIM) == here + 4 * each
    bridge, found, size = sized(None, config, here + 7 * each + 10, model, ENCODER_DIM)
    assert bridge is None
    assert found == cross_attention_config(d_v=7)
    assert size == Size("cross_attention.d_v", 7, here + 7 * each + 10, here + 7 * each)
    assert not model.attached


@pytest.mark.parametrize("bridge", [LinearPrefix(), Full(), LoRA(), Resampler(width=8)], ids=lambda bridge: bridge.kind)
def test_a_bridge_is_counted_without_being_drawn(bridge: Bridge) -> None:
    model = locking_model()
    size, attended = bridge_size(bridge, model, ENCODER_DIM)
    assert not list(bridge.parameters())
    bridge.draw(model, ENCODER_DIM)
    assert (size, attended) == (sum(weight.numel() for weight in bridge.parameters()), bridge.attended_dim)


@pytest.mark.parametrize("length", [10**18, 10**19], ids=["of bytes", "of numbers"])
def test_more_parameters_than_torch_can_count_are_counted_as_beyond(length: int) -> None:
    assert bridge_size(LinearPrefix(length=length), locking_model(), ENCODER_DIM) == (BEYOND, None)


class NeedsValues(LinearPrefix):
    """Draws in a way that needs values."""

    def draw(self, decoder: PluggableModel, encoder_dim: int) -> None:
        super().draw(decoder, encoder_dim)
        assert float(next(self.parameters()).detach().sum()) != 0


def test_a_bridge_that_draws_by_values_is_not_counted() -> None:
    assert bridge_size(NeedsValues(), locking_model(), ENCODER_DIM) == (0, None)
