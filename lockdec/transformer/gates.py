"""How cross-attention starts when it is unlocked: one small class for each kind.

A kind decides two things: the initial value of the gate, if it has one, and how the gate scales what cross-attention
adds to the decoder. All kinds but `plain` initially add exactly nothing.

To add a kind, write its class here, register it in `GATES` and add its name to `configuration.UNLOCKS`, or to
`configuration.ZERO_INITIALISED` if it initially adds nothing.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Gate:
    """What the kinds share: a gate is a factor with a parameter of its own, and a kind without a gate has none."""

    def start(self, output: nn.Linear) -> nn.Parameter | None:
        """Prepare the output projection W_o, and return the gate's parameter; None if the kind has no gate."""
        return None

    def apply(self, gate: nn.Parameter, x: Float[Tensor, "b t d_model"]) -> Float[Tensor, "b t d_model"]:
        """Scale x, which is what cross-attention adds, by the gate."""
        return x * gate


class Plain(Gate):
    """No gate, and W_o as drawn: it changes the decoder's output at once, and exists for comparison."""


class ZeroOutput(Gate):
    """No gate, but W_o = 0, as in LoRA (Hu et al. 2021)."""

    def start(self, output: nn.Linear) -> nn.Parameter | None:
        nn.init.zeros_(output.weight)
        return None


class ReZero(Gate):
    """One factor g for all channels, initially 0 (Bachlechner et al. 2020)."""

    def start(self, output: nn.Linear) -> nn.Parameter | None:
        return nn.Parameter(torch.zeros(1))


class TanhGate(ReZero):
    """The factor tanh(g), g initially 0 (Alayrac et al. 2022, Flamingo)."""

    def apply(self, gate: nn.Parameter, x: Float[Tensor, "b t d_model"]) -> Float[Tensor, "b t d_model"]:
        return x * gate.tanh()


class LayerScale(Gate):
    """One factor for each channel (Touvron et al. 2021), initially 0."""

    def start(self, output: nn.Linear) -> nn.Parameter | None:
        return nn.Parameter(torch.zeros(output.out_features))


GATES: dict[str, Gate] = {
    "zero_output": ZeroOutput(),
    "tanh_gate": TanhGate(),
    "rezero": ReZero(),
    "layerscale": LayerScale(),
    "plain": Plain(),
}
