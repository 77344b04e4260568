"""A pretraining step over full rows: without padding, the decoders themselves are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import nn

from benchmarks.decoders import TUNED, PlainTorch, gpt2, step_flops, token_loss, train_step, x_transformer
from benchmarks.side_by_side import Subject
from benchmarks.worker import device
from lockdec.modules.losses import next_token_loss
from lockdec.transformer.configuration import DecoderConfig
from lockdec.transformer.models import LockingDecoderModel

CONFIG = DecoderConfig(vocab_size=4096, max_len=128, d_model=256, layers=6, heads=8, d_ff=1024)
ROWS, LENGTH = 16, 128

TITLE = (
    "A pretraining step (loss, backward, clipping, fused AdamW; 32 bits): d_model 256, 6 layers, 8 heads, "
    "vocabulary 4,096, dropout 0.1, batch 16 x 128 tokens without padding; lockdec's decoder is locked. Tuned is "
    "the GPT-2 of transformers without dropout on its attention weights and with a fused activation; then keeping "
    "freed memory as lockdec does, and then also with lockdec's choice of matrix library"
)
UNIT = "tokens"
GOALS = {"transformers": 1.2, "transformers tuned": 1.0, "x-transformers": 1.0, "torch": 1.0, "matmul": 0.65}


def tokens(length: int = LENGTH) -> torch.Tensor:
    """Rows of random tokens, none of them special."""
    return torch.randint(3, CONFIG.vocab_size, (ROWS, length), device=device())


def step(run: Callable[[], None]) -> Subject:
    """A step; all subjects do the same work."""
    return Subject(run, work=ROWS * LENGTH, flops=step_flops(CONFIG, ROWS, LENGTH))


def ours() -> Subject:
    """The locked decoder, as the pretrain stage trains it."""
    model, batch = LockingDecoderModel(CONFIG).to(device()).train(), tokens(LENGTH + 1)
    return step(train_step(model.parameters(), lambda: next_token_loss(model, batch, eos_id=2)[0]))


def peer(build: Callable[[DecoderConfig], nn.Module]) -> Callable[[], Subject]:
    """A decoder of another package, from tokens to logits."""

    def subject() -> Subject:
        model, batch = build(CONFIG).to(device()).train(), tokens(LENGTH + 1)
        seen, targets = batch[:, :-1].contiguous(), batch[:, 1:].contiguous()

        def logits() -> torch.Tensor:
            out = model(seen)
            return out if isinstance(out, torch.Tensor) else out.logits

        return step(train_step(model.parameters(), lambda: token_loss(logits(), targets)))

    return subject


def as_torch_multiplies(config: DecoderConfig) -> nn.Module:
    """The tuned GPT-2 in a process with torch's default matrix library."""
    torch.set_float32_matmul_precision("highest")
    return cast(nn.Module, gpt2(config, **TUNED))


def subjects() -> Mapping[str, Callable[[], Subject]]:
    """lockdec and its peers."""
    return {
        "lockdec": ours,
        "transformers": peer(gpt2),
        "transformers tuned": peer(lambda config: gpt2(config, **TUNED)),
        "tuned, keeping memory": peer(as_torch_multiplies),
        "tuned, keeping memory, oneDNN": peer(lambda config: gpt2(config, **TUNED, attn_implementation="eager")),
        "x-transformers": peer(x_transformer),
        "torch": peer(PlainTorch),
    }
