"""Next-token prediction: over real tokens alone, packed or not."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lockdec.modules.language_modeling import next_token_loss
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
