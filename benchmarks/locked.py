"""What locked cross-attention costs, compared with a decoder that has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from torch import Tensor, nn

from benchmarks.decoders import train_step
from benchmarks.pretraining import CONFIG, ours, step, tokens
from benchmarks.side_by_side import Subject
from benchmarks.worker import device
from lockdec.modules.losses import next_token_loss
from lockdec.transformer.layers import Stack, TransformerLayer
from lockdec.transformer.models import LockingDecoderModel

TITLE = (
    "A pretraining step of the locked decoder and of the same decoder built without any cross-attention; sizes as in "
    "pretraining"
)
UNIT = "tokens"
GOALS = {"plain": 0.99}
MEMORY_GOALS = {"plain": 1.01}


class PlainLayer(TransformerLayer):
    """Causal self-attention, feed-forward, and nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        return self.transform(self.attend(x, causal=True), x)


class PlainStack(Stack):
    """A stack of such layers in place of the decoder's."""

    locked = True  # read by the model

    def waiting(self) -> tuple[()]:
        """The attachments of plugs: none."""
        return ()

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        """Apply all layers."""
        for layer in self.layers:
            x = layer(x)
        return cast(Tensor, self.norm(x))


def plain() -> Subject:
    """The decoder without any cross-attention, trained in the same way."""
    model, batch = LockingDecoderModel(CONFIG), tokens(129)
    cast(nn.Module, model).decoder = PlainStack(CONFIG, (PlainLayer(CONFIG) for _ in range(CONFIG.layers)))
    model.to(device()).train()
    seen = batch[:, :-1].contiguous()
    assert seen.shape[1] == CONFIG.max_len
    return step(train_step(model.parameters(), lambda: next_token_loss(model, batch, eos_id=2)[0]))


def subjects() -> Mapping[str, Callable[[], Subject]]:
    """Locked, and without cross-attention."""
    return {"lockdec": ours, "plain": plain}
