"""Training: what is logged, what stops it, and how the learning rate goes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from lockdec.config.schema import TrainerConfig
from lockdec.errors import LockdecError
from lockdec.modules.captioning import Captioning, dropped, perturbed
from lockdec.modules.language_modeling import next_token_loss
from lockdec.optimizers import optimization
from lockdec.optimizers.muon import Muon
from lockdec.optimizers.optimization import FinetuneOptimizerConfig, OptimizerConfig
from lockdec.training.fit import StepSeed, fit
from lockdec.training.watching import LOG_EVERY
from lockdec.transformer.configuration import CrossAttentionConfig
from lockdec.transformer.encoded import Encoded
from tests.transformer.tiny_transformers import locking_model, token_batch

CPU = TrainerConfig(accelerator="cpu", devices=1, precision="32-true", threads=None, checkpoint_seconds=0.0)


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


def adamw(**changes: Any) -> OptimizerConfig:
    defaults: dict[str, Any] = {
        "learning_rate": 0.1,
        "weight_decay": 0.01,
        "betas": [0.9, 0.95],
        "warmup_steps": 5,
        "schedule": "cosine",
        "clip_norm": 1.0,
    }
    return OptimizerConfig(**defaults | changes)


class Line(L.LightningModule):
    """Fits one number to the number of the step."""

    def __init__(self, breaks_at: int = -1) -> None:
        super().__init__()
        self.value, self.breaks_at = nn.Parameter(torch.zeros(1)), breaks_at

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        noise = torch.rand(1)
        loss = (self.value - noise).square().sum() / float(self.global_step != self.breaks_at)
        self.log("stage/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return optimization.configure(self.parameters(), adamw(), steps=20)


class Steps(L.LightningDataModule):
    """Twenty batches."""

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.zeros(20, 1), batch_size=1)  # type: ignore[arg-type]


def train(folder: Path, module: Line) -> Line:
    fit(module, Steps(), stage="stage", folder=folder, loggers=(), steps=20, seed=3, clip_norm=1.0, trainer=CPU)
    return module


def test_the_curve_has_a_row_for_every_tenth_step(tmp_path: Path) -> None:
    train(tmp_path, Line())
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [LOG_EVERY, 2 * LOG_EVERY]
    assert all(float(row["stage/loss"]) >= 0 for row in rows)


def test_what_is_random_in_a_step_depends_on_the_seed_and_the_step_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = train(tmp_path / "a", Line())
    torch.rand(17)  # another state of the global generator
    assert train(tmp_path / "b", Line()).value.equal(first.value)


def test_a_loss_that_is_not_finite_stops_at_its_step(tmp_path: Path) -> None:
    with pytest.raises(LockdecError, match=r"stage: the loss is inf at step 8 .*lower stage\.optimizer\.learning_rate"):
        train(tmp_path, Line(breaks_at=7))


@given(step=st.integers(0, 200), warmup=st.integers(0, 50), schedule=st.sampled_from(["cosine", "constant"]))
def test_the_learning_rate_never_leaves_its_range(step: int, warmup: int, schedule: str) -> None:
    factor = optimization.rate_factor(step, adamw(warmup_steps=warmup, schedule=schedule), steps=100)
    assert 0 < factor <= 1
    if step >= warmup and schedule == "constant":
        assert factor == 1


def test_the_learning_rate_warms_up_and_cools_down() -> None:
    config = adamw(warmup_steps=10)
    factors = [optimization.rate_factor(step, config, steps=100) for step in range(101)]
    assert factors[:10] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert factors[10] == 1
    assert factors[55] == pytest.approx(0.55)  # half way down the cosine from 1 to 0.1
    assert factors[100] == pytest.approx(0.1)


def test_weight_decay_is_for_matrices_alone() -> None:
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(True)
    frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
    groups = optimization.configure([*layer.parameters(), frozen], adamw(), steps=10)["optimizer"].param_groups
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert decays == {id(layer.weight): 0.01, id(layer.bias): 0.0}


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


@pytest.mark.parametrize(("kind", "wanted"), [("adamw", torch.optim.AdamW), ("muon", Muon)])
def test_cross_attention_is_finetuned_by_the_optimizer_of_the_config(
    kind: str, wanted: type[torch.optim.Optimizer]
) -> None:
    optimizer = FinetuneOptimizerConfig(0.1, 0.2, [0.7, 0.9], 5, "constant", 1.0, kind=kind)
    model = locking_model()
    model.attach(CrossAttentionConfig(heads=2, d_q=2, d_k=2, d_v=2), 5)
    model.unlock()
    module = Captioning(model, optimizer, steps=10, stage="finetune", eos_id=2)
    made = module.configure_optimizers()["optimizer"]
    assert type(made) is wanted
    (group,) = made.param_groups
    assert {id(one) for one in group["params"]} == {id(one) for one in model.cross_attention_parameters().values()}
    assert (group["initial_lr"], group["weight_decay"]) == (0.1, 0.2)
    assert group["momentum" if kind == "muon" else "betas"] == (0.7 if kind == "muon" else (0.7, 0.9))


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


def test_each_step_draws_from_a_seed_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    drawn = []
    for step in (5, 6):
        monkeypatch.setattr(L.Trainer, "global_step", step)
        StepSeed(3).on_train_batch_start(trainer)
        drawn.append(torch.rand(4))
        torch.manual_seed(3 * 1_000_003 + step)
        assert torch.equal(drawn[-1], torch.rand(4))
    assert not torch.equal(*drawn)
