"""What a captioner is compared with: no input, a wrong one, and the caption of the closest one of the support set."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from lockdec.data.fewshot import Pair
from lockdec.encoders.encoded import EncodedSet
from lockdec.transformer.encoded import Encoded

Item = TypeVar("Item")


SHIFTS = 5  # by how many distances `shuffled` is averaged


class ConstantState:
    """The states of a captioner that must not see its input: one state, the same for all inputs.

    Attributes:
        dim: channels of the state.
        max_states: how many states an input has.
    """

    dim: ClassVar[int] = 1
    max_states: int = 1

    def batch(self, rows: Sequence[int]) -> Encoded:
        """The state once for each row."""
        return Encoded(torch.ones(len(rows), 1, self.dim), torch.ones(len(rows), 1, dtype=torch.bool))


def shifts(count: int) -> list[int]:
    """Up to `SHIFTS` different distances by which to shift a list of this length: evenly spaced, half of it first.

    Neighbours in a caption set are variants of each other, so the wrong input is far away in the list.
    """
    found = {count * number // (SHIFTS + 1) for number in range(1, SHIFTS + 1)} - {0}
    return sorted(found, key=lambda shift: (abs(2 * shift - count), shift))


def shifted(items: Sequence[Item], shift: int) -> list[Item]:
    """Each item replaced by the one `shift` places further on; the list wraps around."""
    return [*items[shift:], *items[:shift]]


def averaged(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric."""
    return {name: math.fsum(one[name] for one in scores) / len(scores) for name in scores[0]}


def nearest_rows(encoded: EncodedSet, rows: Sequence[int], support: Sequence[int]) -> list[int]:
    """For each row, the index into `support` of the closest one: cosine of the mean normalised states."""
    return [int(index) for index in cosines(encoded.pooled(rows), encoded.pooled(support)).argmax(dim=1)]


def cosines(queries: Float[Tensor, "n d"], keys: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """The cosine of every query with every key."""
    normalize = torch.nn.functional.normalize
    return normalize(queries, dim=-1) @ normalize(keys, dim=-1).T


def write_support(path: Path, ids: Sequence[str], support: Sequence[Pair]) -> None:
    """Write the support set, of which `ids` names the rows, one pair a line."""
    lines = [json.dumps({"id": ids[pair.index], "caption": pair.caption}, ensure_ascii=False) for pair in support]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
