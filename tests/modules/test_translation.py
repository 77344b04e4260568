"""The loss of a translation."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from lockdec.data.tokenizer import PAD_ID
from lockdec.modules.translation import translation_loss
from lockdec.transformer.models import DecoderConfig, EncoderConfig, TransformerModel


def test_loss_and_accuracy_are_over_real_tokens() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 11, "max_len": 8, "d_model": 8, "layers": 1, "heads": 2, "d_ff": 8}
    model = TransformerModel(EncoderConfig(**sizes), DecoderConfig(**sizes)).eval()
    source, target = torch.tensor([[1, 5, 2, 0], [1, 6, 7, 2]]), torch.tensor([[1, 4, 2, 0, 0], [1, 8, 9, 3, 2]])
    loss, accuracy, real = translation_loss(model, source, target)
    logits = model(source, target[:, :-1])
    wanted = target[:, 1:].masked_fill(target[:, 1:] == PAD_ID, -100)
    torch.testing.assert_close(loss, F.cross_entropy(logits.flatten(0, 1), wanted.flatten()))
    right = (logits.argmax(-1) == wanted).sum() / (wanted != -100).sum()
    torch.testing.assert_close(accuracy, right)
    assert real == 6
    padded = translation_loss(model, F.pad(source, (0, 2)), F.pad(target, (0, 3)))
    torch.testing.assert_close(padded[0], loss)
