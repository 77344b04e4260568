"""What a finished run has stored of its own inputs, which captions of new ones are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lockdec.encoders.encoded import IDS, LENGTHS, NORMALISATION, STATES, EncodedSet
from lockdec.errors import StoreError
from lockdec.evaluation.controls import cosines
from lockdec.evaluation.finished import FinishedRun, readable
from lockdec.store import damage
from lockdec.store.reading import SUPPORT
from lockdec.transformer.encoded import Encoded


@dataclass(frozen=True)
class Shuffled:
    """What a captioner says of another input than the one that was asked for.

    Attributes:
        id: of the stored input.
        text: its caption.
    """

    id: str
    text: str


@dataclass(frozen=True)
class Neighbour:
    """The closest input of the support set.

    Attributes:
        id: of the input.
        text: the caption that was trained with.
        cosine: of the mean normalised states.
    """

    id: str
    text: str
    cosine: float


class StoredInputs:
    """The encoder's states of all inputs of a run, and the captions of its support set.

    Args:
        encoded: the states.
        support: the rows of the support set, with their captions; empty where a run has kept none.
    """

    def __init__(self, encoded: EncodedSet, support: Sequence[tuple[int, str]]) -> None:
        self.encoded, self.support = encoded, support
        self._pooled = encoded.pooled([row for row, _ in support]) if support else None

    def unrelated(self, given: Encoded) -> tuple[str, Encoded]:
        """The id and the states of a stored input that has nothing to do with this one, always the same.

        Neighbours in a caption set are variants of each other, so it is half the set away from the closest known one.
        """
        closest = 0 if self._pooled is None else self.support[int(self._similar(given).argmax())][0]
        row = (closest + len(self.encoded) // 2) % len(self.encoded)
        return self.encoded.ids[row], self.encoded.batch([row])

    def nearest(self, given: Encoded) -> Neighbour | None:
        """The closest input of the support set; None where none was kept."""
        if self._pooled is None:
            return None
        similar = self._similar(given)
        index = int(similar.argmax())
        row, text = self.support[index]
        return Neighbour(self.encoded.ids[row], text, float(similar[index]))

    def _similar(self, given: Encoded) -> Float[Tensor, " pairs"]:
        """The cosine of an input with each of the support set, by their mean states; padding is zero."""
        assert self._pooled is not None
        mean = given.states.sum(1) / given.mask.sum(1, keepdim=True)
        return cosines(mean.cpu(), self._pooled)[0]


def stored_inputs(run: FinishedRun) -> StoredInputs | None:
    """What a run has stored; None for an export, which has no states.

    Raises:
        StoreError: its files are damaged, or do not belong together.
    """
    attach = run.artifact("attach")
    if not attach.path(STATES).is_file():
        return None
    if problem := damage(attach.folder, attach.stage, attach.key, names=(IDS, STATES, LENGTHS, NORMALISATION)):
        raise StoreError(f"{attach.path(problem)}: missing or damaged; run the command of this run again to repair it")
    with readable(attach.folder):
        encoded = EncodedSet.open(attach.folder)
        return StoredInputs(encoded, _support(run, encoded))


def _support(run: FinishedRun, encoded: EncodedSet) -> list[tuple[int, str]]:
    """The rows and captions of the support set; nothing where the run does not say."""
    places, support = {name: row for row, name in enumerate(encoded.ids)}, run.support
    for name, _ in support:
        if name not in places:
            raise StoreError(f"{run.folder / SUPPORT}: {name!r} is no input of the run")
    return [(places[name], caption) for name, caption in support]
