"""A linear probe: how much of each attribute a linear classifier reads off the mean state of an input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Label = TypeVar("Label")

_PENALTIES = torch.logspace(-4, 4, 17, dtype=torch.float64)  # times the mean squared singular value of the states


class Ridge:
    """Ridge regression on centred states, with the closed form of its leave-one-out outputs.

    See Hastie et al. 2009, sections 3.4.1 and 7.10. The intercept is not penalised.

    Args:
        states: one vector for each input, in float64.
        wanted: what the outputs ought to be.
    """

    def __init__(self, states: Float[Tensor, "n d"], wanted: Float[Tensor, "n c"]) -> None:
        self.wanted, self.centre, self.intercept = wanted, states.mean(0), wanted.mean(0)
        self._left, self._values, self._right = torch.linalg.svd(states - self.centre, full_matrices=False)
        self._inner = self._left.T @ (wanted - self.intercept)
        self.scale = max(float(self._values.square().mean()), 1e-12)

    def without(self, penalty: float) -> Float[Tensor, "n c"]:
        """For each input, the outputs of the regression that is fitted on all others."""
        shrunk = self._values.square() / (self._values.square() + penalty)
        outputs = (self._left * shrunk) @ self._inner + self.intercept
        own = (self._left.square() * shrunk).sum(1, keepdim=True) + 1 / len(self.wanted)
        without: Tensor = (outputs - own * self.wanted) / (1 - own).clamp(min=1e-9)
        return without

    def weight(self, penalty: float) -> Float[Tensor, "d c"]:
        """The coefficients of the states less their mean."""
        weight: Tensor = self._right.T @ ((self._values / (self._values.square() + penalty))[:, None] * self._inner)
        return weight


class LinearProbe(Generic[Label]):
    """A linear classifier: ridge regression on an indicator of each label, whose highest output is the answer.

    The penalty is the one with the best leave-one-out accuracy on the training inputs; of equals, the largest.

    Args:
        states: of the training inputs, one vector each.
        labels: one for each of them.

    Raises:
        ValueError: there are no inputs.
    """

    def __init__(self, states: Float[Tensor, "n d"], labels: Sequence[Label]) -> None:
        if not labels:
            raise ValueError("a probe needs training inputs")
        self.labels = list(dict.fromkeys(labels))
        numbers = torch.tensor([self.labels.index(label) for label in labels])
        self._ridge = Ridge(states.double(), F.one_hot(numbers, len(self.labels)).double())
        penalties = (_PENALTIES * self._ridge.scale).tolist()
        right = {penalty: int((self._ridge.without(penalty).argmax(1) == numbers).sum()) for penalty in penalties}
        self._weight = self._ridge.weight(max(penalties, key=lambda penalty: (right[penalty], penalty)))

    def __call__(self, states: Float[Tensor, "n d"]) -> list[Label]:
        """The label of each input."""
        outputs = (states.double() - self._ridge.centre) @ self._weight + self._ridge.intercept
        return [self.labels[number] for number in outputs.argmax(1).tolist()]


def commonest(labels: Sequence[Label]) -> Label:
    """The most frequent label, the first of equals: the best guess without an input."""
    return Counter(labels).most_common(1)[0][0]
