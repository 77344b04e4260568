"""Steps of Muon beside torch's own, whose products are kept in 32 bits here, and what torch's does not have."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lockdec.optimizers.muon import Muon, orthogonalised

SHAPES = [(6, 20), (20, 6), (8, 8), (1, 9), (20, 6), (6, 20)]


def parameters(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    draws = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=draws)) for shape in shapes]


def walk(optimizer: torch.optim.Optimizer, moved: list[nn.Parameter], steps: int, scale: float = 1.0) -> None:
    draws = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in moved:
            parameter.grad = scale * torch.randn(parameter.shape, generator=draws)
        optimizer.step()


def test_steps_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "bfloat16", lambda self: self.clone())
    ours, theirs = parameters(*SHAPES), parameters(*SHAPES)
    torchs = torch.optim.Muon(theirs, 0.1, weight_decay=0.3, momentum=0.9, adjust_lr_fn="original")
    walk(Muon(ours, 0.1, momentum=0.9, weight_decay=0.3), ours, 4)
    walk(torchs, theirs, 4)
    for own, their in zip(ours, theirs, strict=True):
        assert torch.allclose(own, their, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(5, 12), (12, 5), (7, 7)])
def test_singular_values_come_near_one(rows: int, columns: int) -> None:
    matrices = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(2)) * torch.tensor(
        [1e-4, 1.0, 1e4]
    ).view(3, 1, 1)
    values = torch.linalg.svdvals(orthogonalised(matrices)) / max(1.0, rows / columns) ** 0.5
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_zeros_stay() -> None:
    assert not orthogonalised(torch.zeros(2, 3, 4)).any()


def test_a_step_is_as_large_whatever_the_gradient() -> None:
    small, large = parameters((6, 20)), parameters((6, 20))
    walk(Muon(small, lr=0.1, momentum=0.9), small, 3, scale=1e-3)
    walk(Muon(large, lr=0.1, momentum=0.9), large, 3, scale=1e3)
    assert torch.allclose(small[0], large[0], rtol=1e-4, atol=1e-5)


def test_matrices_of_one_parameter_are_moved_each_by_itself() -> None:
    (stacked,), alone = parameters((3, 4, 5)), parameters((3, 4, 5))[0].detach()
    each = [nn.Parameter(matrix.clone()) for matrix in alone]
    gradient = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(3))
    stacked.grad = gradient.clone()
    for parameter, part in zip(each, gradient, strict=True):
        parameter.grad = part.clone()
    Muon([stacked], lr=0.1, momentum=0.9).step()
    Muon(each, lr=0.1, momentum=0.9).step()
    assert torch.allclose(stacked, torch.stack(list(each)), atol=1e-6)


def test_a_vector_moves_along_its_gradient_and_a_gate_by_its_sign() -> None:
    vector, gate = nn.Parameter(torch.zeros(50)), nn.Parameter(torch.zeros(1))
    vector.grad, gate.grad = torch.linspace(-1, 2, 50), torch.tensor([-1e-3])
    Muon([vector, gate], lr=0.1, momentum=0.9).step()
    assert torch.cosine_similarity(vector, -vector.grad, dim=0) > 1 - 1e-6
    assert 0.06 < vector.square().mean().sqrt() < 0.13
    assert 0.06 < gate.item() < 0.13


def test_what_has_no_gradient_stays_and_a_step_calls_its_closure() -> None:
    moved, still = parameters((3, 4), (3, 4))
    before = still.detach().clone()

    def loss() -> Tensor:
        moved.grad = None
        value = moved.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer = Muon([moved, still], lr=0.1, momentum=0.9, weight_decay=0.5)
    losses = [optimizer.step(loss).item() for _ in range(3)]
    assert losses == sorted(losses, reverse=True)
    assert torch.equal(still, before)


def test_a_reloaded_optimizer_continues_from_its_state() -> None:
    straight, broken = parameters(*SHAPES), parameters(*SHAPES)
    without_break, before = Muon(straight, lr=0.1, momentum=0.9), Muon(broken, lr=0.1, momentum=0.9)
    walk(without_break, straight, 2)
    walk(before, broken, 2)
    after = Muon(broken, lr=0.1, momentum=0.9)
    after.load_state_dict(before.state_dict())
    walk(without_break, straight, 2)
    walk(after, broken, 2)
    assert all(torch.equal(*pair) for pair in zip(straight, broken, strict=True))
