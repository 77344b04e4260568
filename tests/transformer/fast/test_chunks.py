"""Cross-entropy in chunks is the plain one, with its gradients, and needs little memory."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lockdec.transformer.fast import chunks
from lockdec.transformer.fast.chunks import IGNORED, cross_entropy
from tests.runtime.second_device import SECOND, second_device


@pytest.fixture(autouse=True)
def few_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of three positions of a vocabulary of 11."""
    for most in ("MOST", "MOST_FROZEN"):
        monkeypatch.setattr(sys.modules[cross_entropy.__module__], most, 33)


def states(n: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    wanted = torch.randint(11, (n,), generator=rng)
    wanted[2::5] = IGNORED
    return torch.randn(n, 4, generator=rng).requires_grad_(), wanted


def head(learns: bool) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 11).requires_grad_(learns)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("n", [1, 3, 4, 8, 20])
@pytest.mark.parametrize("learns", [False, True])
def test_losses_and_gradients_are_the_plain_ones(n: int, smoothing: float, learns: bool) -> None:
    (ours, wanted), (plain, _) = states(n), states(n)
    ours_head, plain_head = head(learns), head(learns)
    loss = cross_entropy(ours_head, ours, wanted, 11, smoothing)
    expected = F.cross_entropy(plain_head(plain), wanted, ignore_index=IGNORED, label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)
    for each in (loss, expected):
        torch.autograd.backward(3 * each)
    torch.testing.assert_close(ours.grad, plain.grad)
    torch.testing.assert_close(ours_head.weight.grad, plain_head.weight.grad)
    with torch.inference_mode():
        torch.testing.assert_close(cross_entropy(ours_head, ours, wanted, 11, smoothing), expected)


def test_a_frozen_head_sees_few_positions_at_a_time() -> None:
    seen: list[int] = []
    frozen = head(learns=False)

    def watched(hidden: Tensor) -> Tensor:
        seen.append(len(hidden))
        return F.linear(hidden, frozen.weight)

    hidden, wanted = states(20)
    torch.autograd.backward(cross_entropy(watched, hidden, wanted, 11))
    assert max(seen) == 3
    assert sum(seen) == 21  # one position asks whether the head learns


@pytest.mark.parametrize("learns", [False, True])
def test_ranks_that_need_fewer_parts_take_as_many_as_the_others(learns: bool) -> None:
    """Those of a sharded head wait for each other at every part."""
    (ours, wanted), (plain, _) = states(4), states(4)
    watched, seen = head(learns), list[int]()
    watched.register_forward_hook(lambda *given: seen.append(len(given[1][0])))
    cross_entropy(watched, ours, wanted, 11, agreed=lambda needed: max(needed, 6)).backward()  # type: ignore[no-untyped-call]
    assert seen[:7] == [1, 3, 1, 0, 0, 0, 0]  # the first asks whether the head learns
    F.cross_entropy(head(False)(plain), wanted, ignore_index=IGNORED).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(ours.grad, plain.grad)


def test_it_stays_on_the_device_of_its_states() -> None:
    (ours, wanted), (plain, _) = states(20), states(20)
    F.cross_entropy(head(False)(plain), wanted, ignore_index=IGNORED).backward()  # type: ignore[no-untyped-call]
    with second_device():
        there = ours.detach().to(SECOND).requires_grad_()
        loss = cross_entropy(head(False).to(SECOND), there, wanted.to(SECOND), 11)
        loss.backward()  # type: ignore[no-untyped-call]
        assert there.grad is not None
        assert there.grad.device == SECOND
        torch.testing.assert_close(there.grad.to("cpu"), plain.grad)


def test_nothing_is_learned_where_nothing_asks_for_a_gradient() -> None:
    hidden, wanted = states(20)
    assert not cross_entropy(head(False), hidden.detach(), wanted, 11).requires_grad


def test_half_precision_is_summed_in_single() -> None:
    (ours, wanted), (plain, _) = states(20), states(20)
    frozen = head(False).bfloat16()
    loss: Any = cross_entropy(frozen, ours.bfloat16(), wanted, 11)
    expected = F.cross_entropy(frozen(plain.bfloat16()).float(), wanted, ignore_index=IGNORED)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    for each in (loss, expected):
        torch.autograd.backward(each)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=2**-7, atol=1e-4)  # bfloat16 has 8 bits


def test_a_small_vocabulary_is_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[cross_entropy.__module__], "MOST", 2**24)
    assert chunks(512, 4096) == [slice(0, 512)]
    assert chunks(0, 4096) == [slice(0, 0)]
    assert sum(part.stop - part.start for part in chunks(6400, 152_000)) == 6400
    assert len(chunks(6400, 152_000)) == 59
