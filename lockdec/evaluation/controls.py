"""What a captioner is compared with: an unrelated input, and the caption of the closest input of the support set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

from lockdec.encoders.encoded import EncodedSet

Item = TypeVar("Item")


def shuffled(items: Sequence[Item]) -> list[Item]:
    """Each item replaced by the one half the list away: neighbours in a caption set are variants of each other."""
    half = len(items) // 2
    return [*items[half:], *items[:half]]


def nearest_rows(encoded: EncodedSet, rows: Sequence[int], support: Sequence[int]) -> list[int]:
    """For each row, the index into `support` of the closest one: cosine of the mean normalised states."""
    queries = torch.nn.functional.normalize(encoded.pooled(rows), dim=-1)
    keys = torch.nn.functional.normalize(encoded.pooled(support), dim=-1)
    return [int(index) for index in (queries @ keys.T).argmax(dim=1)]
