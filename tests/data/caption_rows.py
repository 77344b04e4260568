"""A caption set of strings, for tests that need one of their own making."""

from __future__ import annotations

from collections.abc import Sequence

from lockdec.data.captions import CaptionSet, Case, Input, digest


class Texts(CaptionSet):
    """`texts[i]` has the references `captions[i]`; rows are split train, val, test by `sizes`, in order."""

    def __init__(self, captions: Sequence[Sequence[str]], sizes: tuple[int, int, int], case: Case = "lower") -> None:
        self._texts = [f"text {row}" for row in range(len(captions))]
        train, val, _ = sizes
        rows = list(range(sum(sizes)))
        super().__init__(
            ids=self._texts,
            captions=captions,
            splits={"train": rows[:train], "val": rows[train : train + val], "test": rows[train + val :]},
            modality="text",
            inputs_fingerprint=digest(self._texts),
            case=case,
        )

    def inputs(self, indices: Sequence[int]) -> list[Input]:
        return [self._texts[row] for row in indices]
