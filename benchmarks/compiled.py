"""What torch.compile gains in a pretraining step; compiling is not part of the rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from benchmarks import defaults
from benchmarks.decoders import train_step
from benchmarks.pretraining import CONFIG, LENGTH, ours, step, tokens
from benchmarks.side_by_side import Subject
from benchmarks.worker import device
from lockdec.modules.losses import next_token_loss
from lockdec.runtime.acceleration import accelerated
from lockdec.transformer.models import LockingDecoderModel

TITLE = (
    "A pretraining step with trainer.compile=true and without, once the kernels are compiled; sizes as in pretraining"
)
UNIT = "tokens"
GOALS: Mapping[str, float] = {}


def compiled() -> Subject:
    """The locked decoder with compiled layers, as in the pretrain stage with `trainer.compile`."""
    model, batch = LockingDecoderModel(CONFIG).to(device()).train(), tokens(LENGTH + 1)
    with accelerated(model, replace(defaults.pretrain().trainer, compile=True)):
        pass  # the layers stay compiled
    return step(train_step(model.parameters(), lambda: next_token_loss(model, batch, eos_id=2)[0]))


def subjects() -> Mapping[str, Callable[[], Subject]]:
    """Eager and compiled layers."""
    return {"lockdec": ours, "compiled": compiled}
