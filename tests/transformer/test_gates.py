"""Each way of starting cross-attention does what its paper says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lockdec.transformer.configuration import UNLOCKS, ZERO_INITIALISED
from lockdec.transformer.gates import GATES

X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
OPEN = torch.tensor([0.5, -1.0, 2.0, 3.0])  # a factor of each channel; the other gates take its first


def started(kind: str) -> tuple[nn.Linear, nn.Parameter | None]:
    torch.manual_seed(0)
    output = nn.Linear(5, 4)
    return output, GATES[kind].start(output)


def test_the_config_allows_exactly_the_kinds_that_there_are() -> None:
    assert tuple(GATES) == UNLOCKS


@pytest.mark.parametrize("kind", ZERO_INITIALISED)
def test_a_zero_initialised_kind_adds_nothing_at_first(kind: str) -> None:
    output, gate = started(kind)
    if gate is None:
        assert not output.weight.any()
    else:
        assert not GATES[kind].apply(gate, X).any()


@pytest.mark.parametrize("kind", [kind for kind in GATES if kind != "zero_output"])
def test_every_kind_but_zero_output_leaves_the_output_projection_as_drawn(kind: str) -> None:
    output, _ = started(kind)
    torch.manual_seed(0)
    assert torch.equal(output.weight, nn.Linear(5, 4).weight)


@pytest.mark.parametrize(
    ("kind", "size", "factor"),
    [("rezero", 1, OPEN[:1]), ("tanh_gate", 1, OPEN[:1].tanh()), ("layerscale", 4, OPEN)],
)
def test_an_open_gate_scales_what_is_added(kind: str, size: int, factor: Tensor) -> None:
    _, gate = started(kind)
    assert gate is not None
    assert gate.shape == (size,)
    with torch.no_grad():
        gate.copy_(OPEN[:size])
    assert torch.equal(GATES[kind].apply(gate, X), X * factor)


@pytest.mark.parametrize("kind", ["plain", "zero_output"])
def test_kinds_without_a_gate_have_no_parameter(kind: str) -> None:
    assert started(kind)[1] is None
