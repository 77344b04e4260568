"""Dropout: which numbers it drops, how often, and what comes of the others."""

from __future__ import annotations

import pytest
import torch

from lockdec.transformer.fast.dropout import STEPS, Dropout, keep


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_it_drops_its_share_and_keeps_the_mean(share: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(64, 500, requires_grad=True)
    dropped = Dropout(share)(x)
    zeros = dropped == 0
    # 32,000 draws: their share deviates by at most 0.0028.
    assert zeros.float().mean() == pytest.approx(share, abs=0.011)
    assert dropped[~zeros].unique().tolist() == pytest.approx([1 / (1 - share)], rel=1e-4)
    assert zeros.float().mean(0).std() == pytest.approx((share * (1 - share) / 64) ** 0.5, rel=0.15)  # no columns alike
    dropped.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, dropped)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_every_place_of_any_number_is_dropped_at_its_share_and_independently(count: int) -> None:
    """Also the last ones, which may use part of a draw."""
    torch.manual_seed(1)
    kept = torch.stack([keep(torch.Size([count]), STEPS // 4) for _ in range(4000)]).float()
    # A share deviates by 0.007, a covariance by 0.003.
    assert kept.mean(0).tolist() == pytest.approx([0.75] * count, abs=0.03)
    deviations = kept - 0.75
    covariance = deviations.T @ deviations / len(kept)
    torch.testing.assert_close(covariance, torch.eye(count) * 0.1875, atol=0.016, rtol=0)


def test_neighbours_are_dropped_independently() -> None:
    """Four numbers share a draw: what its parts have in common would show between them."""
    torch.manual_seed(1)
    deviations = keep(torch.Size([100_000, 4]), STEPS // 2).float() - 0.5
    correlations = deviations.T @ deviations / len(deviations) * 4
    assert torch.allclose(correlations, torch.eye(4), atol=0.015)  # they deviate by 0.003


def test_it_does_nothing_in_evaluation_and_where_nothing_is_to_be_dropped() -> None:
    x = torch.randn(5, 7)
    assert Dropout(0.5).eval()(x) is x
    assert torch.equal(Dropout(0.0)(x), x)


def test_it_draws_from_torchs_generator() -> None:
    x, dropout = torch.ones(100), Dropout(0.5)
    torch.manual_seed(2)
    first = dropout(x)
    assert not torch.equal(dropout(x), first)
    torch.manual_seed(2)
    assert torch.equal(dropout(x), first)


def test_the_extremes() -> None:
    torch.manual_seed(3)
    x = torch.ones(50_000)
    assert (Dropout(0.999999)(x) != 0).sum() < 20
    assert (Dropout(1e-9)(x) == 1).all()
