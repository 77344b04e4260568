"""Modules without initial weights: nothing is drawn or allocated, and with weights from elsewhere they are the same."""

from __future__ import annotations

import subprocess
import sys

import torch

from lockdec.transformer.fast import undrawn
from lockdec.transformer.models import LockingDecoderModel
from tests.transformer.tiny_transformers import decoder_config, locking_model, token_batch


def test_nothing_is_drawn_and_nothing_takes_memory() -> None:
    before = torch.get_rng_state()
    with undrawn():
        model = LockingDecoderModel(decoder_config())
    assert torch.equal(torch.get_rng_state(), before)
    assert {weight.device.type for weight in model.parameters()} == {"meta"}


def test_with_the_weights_of_another_it_is_the_other() -> None:
    drawn = locking_model(position="learned")
    with undrawn():
        empty = LockingDecoderModel(decoder_config(position="learned"))
    assert {name: weight.shape for name, weight in empty.state_dict().items()} == {
        name: weight.shape for name, weight in drawn.state_dict().items()
    }
    empty.load_state_dict(drawn.state_dict(), assign=True)
    assert torch.equal(empty.eval()(token_batch()), drawn(token_batch()))


def test_the_compiler_of_torch_is_not_imported() -> None:
    """That takes a second, and is why `undrawn` is more than torch's meta device."""
    code = (
        "import sys; from lockdec.transformer.fast import undrawn; from lockdec.transformer.models import *\n"
        "for kind in ('learned', 'sinusoidal', 'rope'):\n"
        "  LockingDecoderModel.undrawn(DecoderConfig(layers=1, position=kind))\n"
        "print('torch._dynamo' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
