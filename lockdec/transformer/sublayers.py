"""What is around every sublayer, and the feed-forward network, which is one.

A sublayer's output is added to its input and normalised: before the sublayer (pre) or after the sum (post).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lockdec.transformer.configuration import TransformerConfig
from lockdec.transformer.fast import Dropout

Sublayer = Callable[[Tensor], Tensor]


def normalisation(config: TransformerConfig, affine: bool = True) -> nn.Module:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019) over d_model."""
    if config.norm_kind == "rms":
        return nn.RMSNorm(config.d_model, eps=config.norm_eps, elementwise_affine=affine)
    return nn.LayerNorm(config.d_model, config.norm_eps, elementwise_affine=affine, bias=config.bias == "all")


class AddNorm(nn.Module):
    """Add the output of a sublayer to its input, and normalise.

    post: norm(x + sublayer(x))   (Vaswani et al. 2017, 3.1)
    pre:  x + sublayer(norm(x))   (GPT-2; Xiong et al. 2020); the stack then ends with a norm
    sandwich: x + after(sublayer(norm(x)))   (Gemma 3; Ding et al. 2021, 2.2), also with a norm at the end
    """

    after: nn.Module | None

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.pre = config.norm != "post"
        self.norm = normalisation(config)
        self.after = normalisation(config) if config.norm == "sandwich" else None
        self.dropout = Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "b t d_model"], sublayer: Sublayer, of: Tensor | None = None
    ) -> Float[Tensor, "b t d_model"]:
        """Apply the sublayer to x, or to `of` if it is given, and add the result to x."""
        if self.pre:
            added = sublayer(self.norm(x if of is None else of))
            return x + cast(Tensor, self.dropout(added if self.after is None else self.after(added)))
        return cast(Tensor, self.norm(x + self.dropout(sublayer(x))))


class LockingAddNorm(AddNorm):
    """Add-and-norm that returns its input exactly wherever the sublayer yields zeros.

    post: x + (norm(x + sublayer(x)) - norm(x))
    pre:  x + sublayer(norm(x))

    norm(x) alone would not return x, hence the difference. The norm has no parameters: all that
    cross-attention learns is in W_q, W_k, W_v and W_o, and W_q can express a scale before it.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.norm, self.after = normalisation(config, affine=False), None
        self.dropout = Dropout(0.0)

    def forward(
        self, x: Float[Tensor, "b t d_model"], sublayer: Sublayer, of: Tensor | None = None
    ) -> Float[Tensor, "b t d_model"]:
        """Apply the sublayer to x."""
        if self.pre:
            return super().forward(x, sublayer)
        return x + cast(Tensor, self.norm(x + self.dropout(sublayer(x))) - self.norm(x))


class FeedForward(nn.Module):
    """The same network at every position: project up to d_ff, activate, project down to d_model.

    (Vaswani et al. 2017, 3.3.) swiglu activates by silu(gate) * up, where gate and up are two projections of width d_ff
    (Shazeer 2020), and geglu_tanh by gelu(gate) * up.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.activation = config.activation
        width = 2 * config.d_ff if self.activation in ("swiglu", "geglu_tanh") else config.d_ff
        self.input = nn.Linear(config.d_model, width, bias=config.bias == "all")
        self.output = nn.Linear(config.d_ff, config.d_model, bias=config.bias == "all")

    def forward(self, x: Float[Tensor, "b t d_model"]) -> Float[Tensor, "b t d_model"]:
        """Apply it at every position."""
        return cast(Tensor, self.output(self._activate(self.input(x))))

    def _activate(self, wide: Tensor) -> Tensor:
        if self.activation == "swiglu":
            gate, up = wide.chunk(2, dim=-1)
            return F.silu(gate) * up
        if self.activation == "geglu_tanh":
            gate, up = wide.chunk(2, dim=-1)
            return F.gelu(gate, approximate="tanh") * up
        if self.activation == "relu":
            return F.relu(wide)
        return F.gelu(wide, approximate="tanh" if self.activation == "gelu_tanh" else "none")
