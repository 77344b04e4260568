"""The learning-rate schedules, and which weights decay."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lockdec.config.checking import plain
from lockdec.config.schema import noam_peak
from lockdec.errors import ConfigError
from lockdec.optimizers import optimization
from lockdec.optimizers.optimization import OptimizerConfig, rate_factor
from tests.conftest import composed
from tests.training.test_fit import adamw


@given(step=st.integers(0, 200), warmup=st.integers(0, 50), schedule=st.sampled_from(["cosine", "constant"]))
def test_the_learning_rate_never_leaves_its_range(step: int, warmup: int, schedule: str) -> None:
    factor = rate_factor(step, adamw(warmup_steps=warmup, schedule=schedule), steps=100)
    assert 0 < factor <= 1
    if step >= warmup and schedule == "constant":
        assert factor == 1


def test_the_learning_rate_warms_up_and_cools_down() -> None:
    config = adamw(warmup_steps=10)
    factors = [rate_factor(step, config, steps=100) for step in range(101)]
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


@pytest.mark.parametrize("d_model", [64, 512])
def test_the_schedule_is_noam(d_model: int) -> None:
    """Vaswani et al. 2017, 5.3: d_model^-0.5 min(step^-0.5, step warmup^-1.5), steps from 1."""
    config = composed("experiment=translation", f"decoder.d_model={d_model}", "translate.optimizer.warmup_steps=40")
    optimizer = config.translate.optimizer
    assert (list(optimizer.betas), optimizer.eps, optimizer.weight_decay) == ([0.9, 0.98], 1e-9, 0)
    assert optimizer.learning_rate == noam_peak(d_model, 40)
    settings = OptimizerConfig(**plain(optimizer))
    for step in (1, 7, 39, 40, 41, 500, 4000):
        noam = d_model**-0.5 * min(step**-0.5, step * 40**-1.5)
        assert math.isclose(settings.learning_rate * rate_factor(step - 1, settings, 4000), noam, rel_tol=1e-12)


def test_a_schedule_that_cannot_be_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"translate\.optimizer\.warmup_steps=0: inverse_square_root needs at least 1"
    ):
        OptimizerConfig(1e-3, 0.0, [0.9, 0.98], 0, "inverse_square_root", 0.0).check("translate.optimizer")
