"""The contract of all data sets: inputs of one modality, their captions, and a split. Needs no torch."""

from __future__ import annotations

import hashlib
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from numpy.typing import NDArray
from PIL import Image

from lockdec.errors import DataError
from lockdec.store import canonical_json

Part: TypeAlias = Image.Image | str | NDArray[Any]
Modality: TypeAlias = Literal["image", "text", "array", "several"]
Input: TypeAlias = Part | Mapping[Modality, Part]
"""What an encoder reads; of modality "several", the parts of one example, each by its own modality."""
Lexicon: TypeAlias = Mapping[str, Mapping[str, str]]
"""For each attribute of the inputs, its values, each with the words that express it in a caption."""
Split: TypeAlias = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Case: TypeAlias = Literal["lower", "keep"]
Item = TypeVar("Item")


def composed(text: str) -> str:
    """`text` in the Unicode form NFC, in which all texts and ids are kept: "e" with an accent is one character."""
    return unicodedata.normalize("NFC", text)


def fold(text: str) -> str:
    """`text` in NFC and lower case with single spaces: the form in which captions are compared."""
    return composed(" ".join(composed(text).lower().split()))


def in_case(text: str, case: Case) -> str:
    """The form in which captions are stored: `text` folded, or in its own case, in NFC and with single spaces."""
    return fold(text) if case == "lower" else " ".join(composed(text).split())


def not_unicode(text: str) -> str | None:
    """What is wrong with a text that UTF-8 cannot hold; None if it can.

    Python strings may contain single surrogates, which no file or tokenizer takes: half of a character that JSON
    escapes as two (`\\ud83d`), or a byte of a file name or an argument that is not UTF-8 (`\\udcff`).
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        at = error.start
        around = ascii(text[max(0, at - 20) : at + 20])
        return (
            f"{around} cannot be written in UTF-8: character {at + 1} is a single surrogate ({ascii(text[at])[1:-1]})"
        )
    return None


def digest(value: object) -> str:
    """The sha256 (hex) of `value` as canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of the items, evenly spaced: neighbours in a caption set are variants of each other."""
    count = min(most, len(items))
    return [items[index * len(items) // count] for index in range(count)]


class CaptionSet(ABC):
    """Inputs of one modality, each with one or more reference captions, split into train, val and test.

    A subclass determines the rows, passes them to this constructor, and reads inputs on demand.

    Args:
        ids: one unique name per input.
        captions: one or more references per input.
        splits: the rows of each split; together they cover every row once.
        modality: what `inputs` returns: RGB images, strings, arrays, or several of these for each example.
        inputs_fingerprint: identifies the bytes of the inputs and the code that turns them into what `inputs` returns.
        case: "lower" folds the captions here; "keep" leaves upper case as it is.

    Attributes:
        skipped: the problem of each row that was skipped; empty unless a subclass skips rows.
        rate: samples a second of the inputs; None where they are no sounds, or it is not known.

    Raises:
        DataError: an id occurs twice or cannot name a file, a caption is empty, a text is not Unicode, the splits
            overlap or miss a row, or one of them is empty.
    """

    skipped: tuple[str, ...] = ()
    rate: int | None = None

    def __init__(
        self,
        *,
        ids: Sequence[str],
        captions: Sequence[Sequence[str]],
        splits: Mapping[Split, Sequence[int]],
        modality: Modality,
        inputs_fingerprint: str,
        case: Case = "lower",
    ) -> None:
        self.ids = tuple(ids)
        self.case: Case = case
        self.captions = tuple(tuple(in_case(reference, case) for reference in references) for references in captions)
        self.splits: Mapping[Split, tuple[int, ...]] = MappingProxyType(
            {name: tuple(sorted(splits.get(name, ()))) for name in SPLITS}
        )
        self.modality: Modality = modality
        self.inputs_fingerprint = inputs_fingerprint
        self._check()
        self.fingerprint = self._digest(self.captions)

    @abstractmethod
    def inputs(self, indices: Sequence[int]) -> list[Input]:
        """The inputs of these rows, in this order.

        Raises:
            DataError: an input cannot be read; the error names its file or id.
        """

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def attributes(self) -> Lexicon:
        """The attributes of an input that its captions express, so that they can be counted; none unless declared."""
        return {}

    @property
    def prompt(self) -> str | None:
        """Words that lead a decoder which knows English to a caption; None where none do for any inputs."""
        return "A picture of:" if self.modality == "image" else None

    def references(self, split: Split) -> list[str]:
        """Every caption of a split, row by row."""
        return [reference for row in self.splits[split] for reference in self.captions[row]]

    def _digest(self, captions: Sequence[Sequence[str]]) -> str:
        splits = {name: self.splits[name] for name in SPLITS}
        return digest([self.ids, captions, splits, self.modality, self.inputs_fingerprint])

    @cached_property
    def caseless_fingerprint(self) -> str:
        """The fingerprint if `case` were "lower": for what reads inputs and no captions."""
        return self._digest([[fold(reference) for reference in references] for references in self.captions])

    @cached_property
    def text_fingerprint(self) -> str:
        """Identifies the captions of each split, whatever their inputs are: all that a language model may read."""
        references = {split: self.references(split) for split in SPLITS}
        return digest(references if self.case == "lower" else [references, self.case])

    def _check(self) -> None:
        if len(self.ids) != len(self.captions):
            raise DataError(f"{len(self.ids)} ids but captions for {len(self.captions)} inputs")
        seen: set[str] = set()
        for name, references in zip(self.ids, self.captions, strict=True):
            for text in (name, *references):
                if problem := not_unicode(text):
                    raise DataError(f"id {name!a}: {problem}")
            if composed(name) in seen:
                raise DataError(f"id {name!r} occurs twice: ids must be unique")
            if "/" in name or "\0" in name or name in ("", ".", ".."):
                raise DataError(f"id {name!r} cannot name a file: runs store pictures by id")
            seen.add(composed(name))
            if not references or not all(references):
                raise DataError(f"input {name!r} has an empty caption or none: every input needs at least one")
        rows = sorted(row for split in self.splits.values() for row in split)
        if rows != list(range(len(self.ids))):
            raise DataError("the splits must contain every row exactly once")
        if not all(len(members) for members in self.splits.values()):
            counts = ", ".join(f"{len(members)} for {name}" for name, members in self.splits.items())
            raise DataError(
                f"data: {type(self).__name__} has {counts}, and each needs at least one input: use more inputs "
                "(data.limit) or another split (data.split)"
            )
