"""Decoders of one shape, each by its own package, and one training step for all: loss, backward, clip, AdamW."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lockdec.transformer.configuration import DecoderConfig

Loss = Callable[..., Tensor]


TUNED: dict[str, Any] = {"attn_pdrop": 0.0, "activation_function": "gelu"}  # as lockdec has it


def gpt2(config: DecoderConfig, cross_attention: bool = False, **options: Any) -> Any:
    """The GPT-2 of `transformers` with its default attention; its cross-attention has the width of the decoder.

    Args:
        options: changes to the package's default configuration, such as TUNED: no dropout on attention weights
            and the fused activation.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    shape: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "n_positions": config.max_len,
        "n_embd": config.d_model,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.d_ff,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "add_cross_attention": cross_attention,
        "use_cache": False,  # for generation; in training it only costs time
        "bos_token_id": None,
        "eos_token_id": None,
    }
    model: Any = GPT2LMHeadModel(GPT2Config(**(shape | options)))
    return model


def x_transformer(config: DecoderConfig) -> Any:
    """The decoder of `x-transformers`: pre-norm, learned positions, tied output, fused attention."""
    from x_transformers import Decoder, TransformerWrapper

    layers = Decoder(
        dim=config.d_model,
        depth=config.layers,
        heads=config.heads,
        attn_dim_head=config.d_head,
        ff_mult=config.d_ff // config.d_model,
        layer_dropout=0.0,
        ff_dropout=config.dropout,
        attn_flash=True,
    )
    return TransformerWrapper(
        num_tokens=config.vocab_size,
        max_seq_len=config.max_len,
        attn_layers=layers,
        emb_dropout=config.dropout,
        tie_embedding=True,
    )


class PlainTorch(nn.Module):
    """torch's TransformerEncoderLayer with a causal mask; its TransformerDecoderLayer requires cross-attention."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = nn.Embedding(config.max_len, config.d_model)
        layer = nn.TransformerEncoderLayer(
            config.d_model,
            config.heads,
            config.d_ff,
            config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        layer.self_attn.dropout = 0.0  # ours has none there either
        self.layers = nn.TransformerEncoder(
            layer, config.layers, nn.LayerNorm(config.d_model), enable_nested_tensor=False
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Next-token logits (b, t, vocab)."""
        t = tokens.shape[1]
        x = self.dropout(self.tokens(tokens) + self.positions.weight[:t])
        ahead = nn.Transformer.generate_square_subsequent_mask(t, device=tokens.device)
        return F.linear(self.layers(x, mask=ahead, is_causal=True), self.tokens.weight)


def token_loss(logits: Tensor, targets: Tensor, ignored: int = -100) -> Tensor:
    """Mean cross-entropy of (b, t, vocab) against (b, t), ignored targets left out."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=ignored)


Optimized = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer a user of torch would choose."""
    return torch.optim.AdamW(parameters, lr=1e-4, fused=True)


def muon(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The default of the finetune stage; earlier commits (`--against`) may not have it."""
    from lockdec.optimizers.muon import Muon

    return Muon(parameters, lr=1e-3, momentum=0.95)


def train_step(
    parameters: Iterable[nn.Parameter],
    loss: Callable[[], Tensor],
    optimized: Optimized = adamw,
) -> Callable[[], None]:
    """A bare training step, as a user would write it with torch's fast paths."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = optimized(trained)

    def run() -> None:
        torch.autograd.backward(loss())
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return run


def step_flops(config: DecoderConfig, rows: int, length: int) -> float:
    """Floating-point operations of the matrix products of one step over full rows, forward and backward.

    Attention is causal: half of the scores count. The backward pass costs twice the forward pass.
    """
    d, n = config.d_model, rows * length
    projections = 2 * n * config.layers * (4 * d * d + 2 * d * config.d_ff)
    scores = 2 * 2 * rows * config.layers * length * length * d / 2
    logits = 2 * n * d * config.vocab_size
    return 3 * (projections + scores + logits)
