"""Next-token losses: over real tokens alone, packed or not; and that of a translation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from lockdec.data.tokenizer import PAD_ID
from lockdec.modules.losses import next_token_loss, translation_loss
from lockdec.transformer.models import DecoderConfig, EncoderConfig, TransformerModel
from tests.transformer.tiny_transformers import locking_model, token_batch


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ends", [[3, 6, 6], [2, 2, 2], [6, 6, 5]])  # real targets: 15, 6 and 17, none of them 8 n
def test_the_loss_is_the_mean_over_real_targets_alone(pack: bool, label_smoothing: float, ends: list[int]) -> None:
    eos = 2
    model, tokens = locking_model().eval(), token_batch().clamp(min=3)
    for row, end in enumerate(ends):
        tokens[row, end] = eos
    losses = [
        F.cross_entropy(model(row[None, :end])[0], row[1 : end + 1], label_smoothing=label_smoothing, reduction="none")
        for row, end in zip(tokens, ends, strict=True)
    ]
    loss, count = next_token_loss(model, tokens, eos, label_smoothing=label_smoothing, pack=pack)
    assert count == sum(ends)
    torch.testing.assert_close(loss, torch.cat(losses).mean())


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("prompt", [1, 2])
def test_a_prompt_is_read_and_not_learned(pack: bool, prompt: int) -> None:
    """An EOS in the prompt ends nothing, and the loss is that of the tokens after it."""
    eos, ends = 2, [5, 6, 4]
    model, tokens = locking_model().eval(), token_batch().clamp(min=3)
    tokens[:, prompt] = eos
    for row, end in enumerate(ends):
        tokens[row, end] = eos
    losses = [
        F.cross_entropy(model(row[None, :end])[0, prompt:], row[1 + prompt : end + 1], reduction="none")
        for row, end in zip(tokens, ends, strict=True)
    ]
    loss, count = next_token_loss(model, tokens, eos, pack=pack, prompt_length=prompt)
    assert count == sum(ends) - prompt * len(ends)
    torch.testing.assert_close(loss, torch.cat(losses).mean())


def test_loss_and_accuracy_of_a_translation_are_over_real_tokens() -> None:
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
