"""Several encoders at once: their states side by side, each in channels of its own.

Cross-attention over such states is the joint attention of several memories: a projection of keys or values has a block
of rows for the channels of each encoder, so each memory has a projection of its own, and one softmax is over them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from lockdec.data.captions import CaptionSet, Input, Modality
from lockdec.encoders.contract import Encoder, PretrainedHere
from lockdec.errors import ConfigError, DataError
from lockdec.transformer.encoded import Encoded


class Together(Encoder):
    """The states of all parts for one example: the whole input, or of an example in several parts that of its modality.

    A state of one part has zeros in the channels of the others. The parts stand in the order of their names.

    Args:
        parts: two or more encoders by name.

    Raises:
        ConfigError: there are fewer than two.
    """

    def __init__(self, parts: Mapping[str, Encoder]) -> None:
        super().__init__()
        if len(parts) < 2:
            raise ConfigError(f"encoder.parts={list(parts)}: name two encoders or more")
        self.names = tuple(sorted(parts))
        self.parts = nn.ModuleList(parts[name] for name in self.names)
        self.modality = together_modality([part.modality for part in self._encoders()])
        self.apart = tuple(part.dim for part in self._encoders())
        self.groups = tuple(width for part in self._encoders() for width in part.groups)
        self.dim = sum(self.apart)

    def _encoders(self) -> list[Encoder]:
        return cast("list[Encoder]", list(self.parts))

    @property
    def settings(self) -> Mapping[str, Any]:
        return {
            "parts": [[name, type(part).__qualname__, dict(part.settings)] for name, part in self._named()],
        }

    def _named(self) -> list[tuple[str, Encoder]]:
        return list(zip(self.names, self._encoders(), strict=True))

    def check(self, data: CaptionSet) -> None:
        if self.modality != "several":
            for part in self._encoders():
                part.check(data)

    def reads_whole(self, given: Input) -> bool:
        return all(part.reads_whole(_share(given, name, part)) for name, part in self._named())

    def preprocess(self, inputs: Sequence[Input]) -> list[Any]:
        """What each part makes of its share of the inputs.

        Raises:
            DataError: an example has nothing for one of the parts.
        """
        return [part.preprocess([_share(given, name, part) for given in inputs]) for name, part in self._named()]

    def forward(self, batch: list[Any]) -> Encoded:
        """The states of the first part of each example, then those of the next."""
        found = [cast(Encoded, part(own)) for part, own in zip(self._encoders(), batch, strict=True)]
        return side_by_side(found)

    def labels(self, given: Input) -> list[str] | None:
        """Those of the parts, one after the other; None where one of them has none."""
        found: list[str] = []
        for name, part in self._named():
            own = part.labels(_share(given, name, part))
            if own is None:
                return None
            found += tuple(own)
        return found


@dataclass(frozen=True)
class PretrainedTogether(PretrainedHere):
    """Several encoders of which one is pretrained in the same pipeline.

    Attributes:
        parts: encoders by name; see `Together`.
    """

    parts: Mapping[str, Encoder | PretrainedHere]

    def __post_init__(self) -> None:
        if len(self._pretrained) != 1:
            raise ConfigError(f"encoder.parts={list(self.parts)}: one of them has to be pretrained in this pipeline, "
                              f"and {len(self._pretrained)} are")  # fmt: skip

    @cached_property
    def _pretrained(self) -> list[PretrainedHere]:
        return [part for part in self.parts.values() if isinstance(part, PretrainedHere)]

    @property
    def modality(self) -> Modality:  # type: ignore[override]
        """Of the inputs of the encoder."""
        return together_modality([part.modality for part in self.parts.values()])

    @property
    def stage(self) -> str:  # type: ignore[override]
        """The name of the stage that pretrains one of them."""
        return self._pretrained[0].stage

    def open(self, folder: Path) -> Encoder:
        return Together({
            name: part.open(folder) if isinstance(part, PretrainedHere) else part for name, part in self.parts.items()
        })  # fmt: skip

    def groups_for(self, sizes: Any) -> tuple[int, ...] | None:
        """Those of all parts, in the order of `Together`."""
        found: tuple[int, ...] = ()
        for _, part in sorted(self.parts.items()):
            own = part.groups_for(sizes) if isinstance(part, PretrainedHere) else part.groups
            if own is None:
                return None
            found += tuple(own)
        return found


def together_modality(several: Sequence[Modality]) -> Modality:
    """That of all encoders, or "several" where they read different parts of an example."""
    return several[0] if len(set(several)) == 1 else "several"


def side_by_side(several: Sequence[Encoded]) -> Encoded:
    """The states of several encoders one after the other, each in channels of its own, and zero in all others."""
    width, padded = sum(one.states.shape[-1] for one in several), []
    before = 0
    for one in several:
        own = one.states.shape[-1]
        padded.append(nn.functional.pad(one.states, (before, width - before - own)))
        before += own
    # A masked state must not count as one of any part.
    mask = torch.cat([one.mask for one in several], dim=1)
    return Encoded(torch.cat(padded, dim=1).masked_fill(~mask[:, :, None], 0), mask).trimmed()


def _share(given: Input, name: str, part: Encoder) -> Input:
    """What a part reads of an example: all of it, where the part itself has several."""
    if not isinstance(given, Mapping) or part.modality == "several":
        return given
    if part.modality not in given:
        there = ", ".join(given) or "nothing"
        raise DataError(f"the encoder {name!r} reads {part.modality}, and the example has {there}")
    return cast(Input, given[part.modality])
