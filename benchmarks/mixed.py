"""A pretraining step of a decoder of GPT-2's size on a GPU, as `trainer=gpu` takes it: bfloat16 and compiled layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import defaults
from benchmarks.decoders import TUNED, gpt2, step_flops, token_loss, train_step, x_transformer
from benchmarks.side_by_side import Subject
from benchmarks.worker import device
from lockdec.modules.language_modeling import next_token_loss
from lockdec.runtime.acceleration import accelerated
from lockdec.transformer.configuration import DecoderConfig
from lockdec.transformer.models import LockingDecoderModel

CONFIG = DecoderConfig(vocab_size=50_304, max_len=512, d_model=768, layers=12, heads=12, d_ff=3072)
ROWS, LENGTH = 32, 512

TITLE = (
    "A pretraining step (loss, backward, clipping, fused AdamW) under bfloat16 autocast on a GPU: d_model 768, 12 "
    "layers, 12 heads, vocabulary 50,304, dropout 0.1, batch 32 x 512 tokens without padding; lockdec's decoder is "
    "locked and its layers are compiled, as with trainer=gpu. The GPT-2 of transformers is tuned as in pretraining"
)
UNIT = "tokens"
GOALS = {"transformers": 1.0, "transformers, compiled": 1.0, "x-transformers": 1.0}
ON = "cuda"  # not measured elsewhere


def step(model: nn.Module, loss: Callable[[Tensor], Tensor]) -> Subject:
    """A training step over random tokens, none of them special."""
    batch = torch.randint(3, CONFIG.vocab_size, (ROWS, LENGTH + 1), device=device())

    def mixed() -> Tensor:
        with torch.autocast(device().type, torch.bfloat16):
            return loss(batch)

    run = train_step(model.parameters(), mixed)
    return Subject(run, work=ROWS * LENGTH, flops=step_flops(CONFIG, ROWS, LENGTH))


def ours(compiled: bool) -> Subject:
    """The locked decoder, as the pretrain stage trains it."""
    model = LockingDecoderModel(CONFIG).to(device()).train()
    with accelerated(model, replace(defaults.pretrain().trainer, compile=compiled)):
        pass  # the layers stay compiled
    return step(model, lambda batch: next_token_loss(model, batch, eos_id=2)[0])


def peer(model: Any) -> Subject:
    """A decoder of another package, from tokens to logits."""
    model.to(device()).train()

    def loss(batch: Tensor) -> Tensor:
        out = model(batch[:, :-1].contiguous())
        return token_loss(out if isinstance(out, Tensor) else out.logits, batch[:, 1:].contiguous())

    return step(model, loss)


def subjects() -> Mapping[str, Callable[[], Subject]]:
    """lockdec and its peers."""
    return {
        "lockdec": lambda: ours(compiled=True),
        "lockdec, not compiled": lambda: ours(compiled=False),
        "transformers": lambda: peer(gpt2(CONFIG, **TUNED)),
        "transformers, compiled": lambda: peer(torch.compile(gpt2(CONFIG, **TUNED))),
        "x-transformers": lambda: peer(x_transformer(CONFIG)),
    }
