"""Captioning: which states a step sees, and what trains."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch

from lockdec.modules.captioning import Captioning, dropped, perturbed
from lockdec.modules.losses import next_token_loss
from lockdec.optimizers.muon import Muon
from lockdec.optimizers.optimization import FinetuneOptimizerConfig
from lockdec.training.batching import CaptionBatch
from lockdec.transformer.configuration import CrossAttentionConfig
from lockdec.transformer.encoded import Encoded
from tests.transformer.tiny_transformers import locking_model


@pytest.mark.parametrize(
    ("real", "share", "counts"), [(8, 0.3, {5, 6}), (8, 0.25, {6}), (1, 0.9, {1}), (2, 0.9, {1}), (0, 0.5, {0})]
)
def test_a_share_of_the_states_is_dropped_and_never_all(real: int, share: float, counts: set[int]) -> None:
    torch.manual_seed(0)
    mask = (torch.arange(10) < real).expand(400, 10)
    drops = dropped(mask, share)
    assert not (drops & ~mask).any()
    assert set((mask & ~drops).sum(1).tolist()) == counts
    if len(counts) == 2:
        assert drops[:, :real].float().mean() == pytest.approx(share, abs=0.01)
        assert drops[:, :real].float().mean(0).tolist() == pytest.approx([share] * real, abs=0.1)


def test_perturbed_states_are_those_that_are_left_with_noise() -> None:
    torch.manual_seed(0)
    states = torch.arange(64 * 10.0).view(64, 10, 1).expand(-1, -1, 200)
    encoded = Encoded(states, (torch.arange(10) < 8).expand(64, 10))
    left = perturbed(encoded, noise=0.0, dropout=0.5)
    assert left.states.shape == (64, 4, 200)
    assert left.mask.all()
    places = left.states[:, :, 0] - states[:, :1, 0]
    assert (places.diff(dim=1) > 0).all()  # in their order, each once
    assert places.max() < 8
    noisy = perturbed(encoded, noise=0.5, dropout=0.0)
    assert noisy.mask.equal(encoded.mask)
    assert (noisy.states - encoded.states).std() == pytest.approx(0.5, rel=0.05)


def test_noise_stays_in_the_channels_of_the_encoder_that_a_state_is_of() -> None:
    torch.manual_seed(0)
    first = torch.tensor([True, True, False, False])
    states = torch.where(first, 1.0, 0.0).repeat(2, 1)[None]  # two states of the first encoder
    states = torch.cat([states, 1.0 - states], dim=1)  # and two of the second, which has the other channels
    noisy = perturbed(Encoded(states, torch.ones(1, 4, dtype=torch.bool)), noise=0.5, dropout=0.0, apart=(2, 2)).states
    assert ((noisy == states) == (states == 0)).all()


@pytest.mark.parametrize(("kind", "wanted"), [("adamw", torch.optim.AdamW), ("muon", Muon)])
def test_cross_attention_is_finetuned_by_the_optimizer_of_the_config(
    kind: str, wanted: type[torch.optim.Optimizer]
) -> None:
    optimizer = FinetuneOptimizerConfig(0.1, 0.2, [0.7, 0.9], 5, "constant", 1.0, kind=kind)
    model = locking_model()
    model.attach(CrossAttentionConfig(heads=2, d_q=2, d_k=2, d_v=2), 5)
    model.unlock()
    module = Captioning(model, optimizer, steps=10, stage="finetune", eos_id=2)
    module.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    made = module.configure_optimizers()["optimizer"]
    assert type(made) is wanted
    (group,) = made.param_groups
    assert {id(one) for one in group["params"]} == {id(one) for one in model.cross_attention_parameters().values()}
    assert (group["initial_lr"], group["weight_decay"]) == (0.1, 0.2)
    assert group["momentum" if kind == "muon" else "betas"] == (0.7 if kind == "muon" else (0.7, 0.9))


def test_the_objective_is_smoothed_and_sees_perturbed_states() -> None:
    model = locking_model().eval()
    model.attach(CrossAttentionConfig(heads=2, d_q=2, d_k=2, d_v=2, unlock="plain"), 5)
    model.unlock()
    tokens = torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]])
    batch = CaptionBatch(tokens, Encoded(torch.randn(2, 3, 5), torch.ones(2, 3, dtype=torch.bool)), torch.arange(2))
    optimizer = FinetuneOptimizerConfig(0.1, 0.2, [0.7, 0.9], 5, "constant", 1.0)
    changes: list[dict[str, Any]] = [{}, {"label_smoothing": 0.2}, {"state_noise": 5.0}, {"state_dropout": 0.7}]
    losses = [
        float(Captioning(model, optimizer, 1, "finetune", eos_id=2, **options).objective(batch).detach())
        for options in changes
    ]
    for loss, smoothing in zip(losses, (0.0, 0.2), strict=False):
        expected, _ = next_token_loss(model, tokens, 2, batch.encoded, smoothing)
        assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    assert len({round(loss, 6) for loss in losses}) == 4
