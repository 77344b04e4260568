"""Switching between two things that one decoder has learned: plugs here, adapters in PEFT."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Any

from benchmarks.decoders import gpt2
from benchmarks.side_by_side import Subject
from benchmarks.worker import device
from lockdec.transformer.models import CrossAttentionConfig, DecoderConfig, LockingDecoderModel

TITLE = (
    "Switching from one plug to another and back at default sizes (d_model 192, 4 layers, 8 heads of cross-attention "
    "with d_k 8 and d_v 32 over states of 149 channels), by `LockingDecoderModel.use`; PEFT switches between two LoRA "
    "adapters of rank 8 on the attention of a GPT-2 with as many layers, by `set_adapter`"
)
UNIT = "switches"
GOALS = {"peft": 1.0}
NAMES = ("first", "second")
CONFIG = DecoderConfig(vocab_size=2048, max_len=64, d_model=192, layers=4, heads=6, d_ff=768)


def ours() -> Subject:
    """Two plugs on the default decoder."""
    model = LockingDecoderModel(CONFIG).to(device()).eval()
    for name in NAMES:
        model.attach(name, CrossAttentionConfig(heads=8, d_q=8, d_k=8, d_v=32), encoder_dim=149)
    model.unlock()
    turns = cycle(NAMES)
    return Subject(lambda: model.use(next(turns)), work=1)


def peft() -> Subject:
    """Two adapters on a GPT-2."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=8, target_modules=["c_attn", "attn.c_proj"], fan_in_fan_out=True)
    model: Any = get_peft_model(gpt2(CONFIG), config, adapter_name=NAMES[0])
    model.add_adapter(NAMES[1], config)
    model.to(device()).eval()
    turns = cycle(NAMES)
    return Subject(lambda: model.set_adapter(next(turns)), work=1)


def subjects() -> Mapping[str, Callable[[], Subject]]:
    """lockdec and PEFT."""
    return {"lockdec": ours, "peft": peft}
