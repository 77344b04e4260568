"""Adaptation: the upper layers learn the next token of a text, and what is below them does not move."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lockdec.modules.adaptation import Adaptation
from lockdec.modules.language_modeling import LanguageModeling
from lockdec.training.batching import TextBatch
from tests.training.test_fit import adamw
from tests.transformer.tiny_transformers import EOS, locking_model, token_batch


def adaptation(frozen: int, prompt: int = 0, dropout: float = 0.0) -> Adaptation:
    model = locking_model(layers=3, dropout=dropout)
    return Adaptation(model, adamw(), 10, "adapt", eos_id=EOS, prefix_layers=frozen, prompt_length=prompt)


def text() -> torch.Tensor:
    """Three rows, each with its end in the last place."""
    tokens = token_batch().clamp(min=3)
    tokens[:, -1] = EOS
    return tokens


def loss_of(module: Adaptation, batch: TextBatch) -> torch.Tensor:
    loss = module.measure(batch, 0).metrics["loss"]
    assert isinstance(loss, torch.Tensor)
    return loss


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_upper_layers_and_the_last_norm_train_alone(frozen: int) -> None:
    module = adaptation(frozen)
    weights = dict(module.model.named_parameters())
    trained = {name for name, weight in weights.items() if weight.requires_grad}
    upper = tuple(f"decoder.layers.{layer}." for layer in range(frozen, 3))
    assert trained == {name for name in weights if name.startswith((*upper, "decoder.norm."))}
    assert [layer.training for layer in module.model.decoder.layers] == [layer >= frozen for layer in range(3)]
    assert set(module.state_dict()) == {f"model.{name}" for name in trained}, "a checkpoint holds what trains"
    torch.autograd.backward(loss_of(module, TextBatch(text(), None)))
    assert {name for name, weight in weights.items() if weight.grad is not None} == trained


@pytest.mark.parametrize("prompt", [0, 2])
def test_the_loss_is_that_of_the_tokens_after_the_prompt(prompt: int) -> None:
    module, tokens = adaptation(1, prompt), text()
    logits = module(tokens[:, :-1])[:, prompt:]
    expected = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1 + prompt :].flatten())
    torch.testing.assert_close(loss_of(module, TextBatch(tokens, None)), expected)
    assert module.measure(TextBatch(tokens, None), 0).weight == 3 * (6 - prompt)


def test_frozen_layers_that_were_run_in_advance_change_nothing() -> None:
    module, tokens = adaptation(2), text()
    weight = module.model.get_parameter("decoder.layers.2.feed_forward.output.weight")
    found = []
    for prefix in (None, module.model.prefix(tokens[:, :-1], 2).hidden):
        loss = loss_of(module, TextBatch(tokens, prefix))
        found.append((loss, *torch.autograd.grad(loss, weight)))
    torch.testing.assert_close(*found)


def test_ranks_agree_on_the_parts_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a sharded head would wait for each other for ever."""
    asked: list[int] = []

    def highest(number: int) -> int:
        asked.append(number)
        return number

    monkeypatch.setattr("lockdec.distributed.ranks.highest", highest)
    of_upper_layers, of_all = adaptation(1), LanguageModeling(locking_model(), adamw(), 10, "pretrain")
    for objective in (of_upper_layers, of_all):
        before = len(asked)
        objective.measure(TextBatch(text(), None), 0)
        assert len(asked) > before
