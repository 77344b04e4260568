"""Caption sets that a file lists row by row: checked, merged by input, split, and read on demand.

Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lockdec.console import track
from lockdec.data.captions import (
    SPLITS,
    CaptionSet,
    Case,
    Input,
    Split,
    composed,
    digest,
    fold,
    in_case,
    not_unicode,
    spread,
)
from lockdec.data.sources import InputSource
from lockdec.errors import ConfigError, DataError, StoreError
from lockdec.store.writing import write_json

OnBad: TypeAlias = Literal["error", "skip"]

_LONGEST_NAME = 200  # bytes of an id, which names files
_LONGEST_TEXT = 100_000  # characters of an input or a caption
_TOLD = 10  # bad rows that an error lists
_SAVE_EVERY = 5_000  # inputs checked between two writes of the cache


@dataclass(frozen=True, slots=True)
class Row:
    """The content of one row of a data file.

    Attributes:
        where: the row within its file, for errors ("line 3").
        input: the entry that names the input.
        captions: one or more captions.
        split: train, val or test; None if the file does not specify it.
        id: the name of the input; None derives it from the entry.
    """

    where: str
    input: str
    captions: tuple[str, ...]
    split: str | None = None
    id: str | None = None


class BadRows:
    """Collects the rows that cannot be used: either they are an error, told together, or they are left out.

    Args:
        on_bad: "error" or "skip".
        what: the name of the data file.

    """

    def __init__(self, on_bad: OnBad, what: str) -> None:
        self.on_bad, self.what = on_bad, what
        self._rows: list[tuple[str, str]] = []

    def add(self, where: str, problem: object) -> None:
        """Record a row that cannot be used."""
        self._rows.append((where, str(problem)))

    @property
    def left_out(self) -> tuple[str, ...]:
        """The problem of each of these rows, in the order of the file."""
        return tuple(f"{self.what} {problem}" for problem in self._problems())

    def stop(self) -> None:
        """Call this when all rows have been checked.

        Raises:
            DataError: there are bad rows, and they are not to be left out; the error lists the first ten.
        """
        if self.on_bad == "skip" or not self._rows:
            return
        hint = "data.on_bad=skip leaves such rows out"
        if len(self._rows) == 1:
            raise DataError(f"{self.left_out[0]} ({hint})")
        raise DataError(f"{self.what}: {len(self._rows):,} rows cannot be used ({hint}): {self._first()}")

    def unusable(self, problem: str) -> DataError:
        """The error that too few rows are left, with the problems of those that were left out."""
        return DataError(f"{self.what}: {problem}{f'; left out: {self._first()}' if self._rows else ''}")

    def _first(self) -> str:
        more = len(self._rows) - _TOLD
        return "; ".join(self._problems()[:_TOLD]) + (f"; and {more:,} more" if more > 0 else "")

    def _problems(self) -> list[str]:
        return [f"{where}: {problem}" for where, problem in sorted(self._rows, key=_place)]


def _place(row: tuple[str, str]) -> tuple[str, int]:
    """What sorts rows as in the file: "line 9" is before "line 10"."""
    kind, _, number = row[0].rpartition(" ")
    return kind, int(number)


@dataclass(frozen=True)
class Drawn:
    """How to split rows if the data does not specify a split.

    Attributes:
        seed: of the random split.
        val_share, test_share: fractions of all inputs, each above 0 and together below 1.
    """

    seed: int = 0
    val_share: float = 0.1
    test_share: float = 0.1

    def __post_init__(self) -> None:
        if not (self.val_share > 0 < self.test_share and self.val_share + self.test_share < 1):
            raise ConfigError(f"data.val_share={self.val_share} data.test_share={self.test_share}: "
                              "each above 0, together below 1")  # fmt: skip


@dataclass
class _Listed:
    where: str
    captions: dict[str, str]  # by their folded form
    split: str | None
    id: str
    digest: str = field(default="")


class ListedCaptions(CaptionSet):
    """Inputs and captions from rows. Rows that name the same input give it several references.

    Args:
        rows: the rows of the data file, in order.
        source: reads the inputs that the rows name.
        bad: receives the rows that cannot be used.
        drawn: how to split if no row names its split; copies of an input are always in one split, and so are, with
            `case="lower"`, those of a text in another case. Where rows name their splits, rows of a later one that
            copy an input of an earlier one are bad.
        limit: approximate number of inputs to use, spread evenly over each split; None for all.
        cache: a folder that remembers which files have been checked; None to check them every time.
        case: as in `CaptionSet`; captions that differ in case alone are one.

    Raises:
        DataError: a row cannot be used, or a split would be empty.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        source: InputSource,
        bad: BadRows,
        *,
        drawn: Drawn,
        limit: int | None = None,
        cache: str | None = None,
        case: Case = "lower",
    ) -> None:
        if limit is not None and limit < 8:
            raise ConfigError(f"data.limit={limit}: at least 8 inputs, or null for all")
        listed = _merged(rows, source, bad)
        if limit is not None:
            listed = _spread(listed, limit)
        listed = _checked(listed, source, bad, Path(cache) if cache else None)
        with_split = any(entry.split for entry in listed.values())
        if with_split:
            listed = _apart(listed, source, case, bad)
        bad.stop()
        if len(listed) < 3:
            raise bad.unusable(f"{len(listed)} usable inputs; at least one each for train, val and test is needed")
        splits = _given(listed, bad) if with_split else _draw(listed, source, case, drawn, bad)
        self.entries = tuple(listed)
        self.source = source
        self.skipped = bad.left_out
        digests = [entry.digest for entry in listed.values()]
        super().__init__(
            ids=[entry.id for entry in listed.values()],
            captions=[tuple(entry.captions.values()) for entry in listed.values()],
            splits=splits,
            modality=source.modality,
            inputs_fingerprint=digest([type(source).__name__, source.version, digests]),
            case=case,
        )

    def inputs(self, indices: Sequence[int]) -> list[Input]:
        """Read the inputs of these rows."""
        return [self.source.read(self.entries[row]) for row in indices]


def usable_id(name: str) -> str:
    """The name as a valid file name; different names stay different."""
    usable = re.sub(r'^\.{1,2}$|[\x00-\x1f\x7f/\\%:*?"<>|]', _escaped, name)
    return usable if len(usable.encode()) <= _LONGEST_NAME else hashlib.sha256(name.encode()).hexdigest()


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{ord(character):02X}" for character in found[0])


def _merged(rows: Iterable[Row], source: InputSource, bad: BadRows) -> dict[str, _Listed]:
    """The rows by input, without bad ones."""
    listed: dict[str, _Listed] = {}
    named: dict[str, str] = {}  # input by id
    rows = list(rows)
    with_split = any(row.split in SPLITS for row in rows)
    for row in rows:
        if problem := _unreadable(row):
            bad.add(row.where, problem)
            continue
        captions: dict[str, str] = {}
        for caption in filter(str.strip, row.captions):
            captions.setdefault(fold(caption), caption)
        try:
            name = source.name(row.input)
        except DataError as error:
            bad.add(row.where, error)
            continue
        known = listed.get(name)
        own = usable_id(composed(row.id or name))
        if not captions:
            bad.add(row.where, f"an empty caption for {row.input!r}; every input needs at least one")
        elif row.split is not None and row.split not in SPLITS:
            bad.add(row.where, f"split {row.split!r} is not one of: {', '.join(SPLITS)}")
        elif with_split and row.split is None:
            bad.add(row.where, f"{row.input!r} has no split, but other rows have; one of: {', '.join(SPLITS)}")
        elif known and known.split != row.split:
            bad.add(row.where, f"{row.input!r} is in split {row.split}, but in {known.split} in {known.where}")
        elif named.get(own, name) != name:
            bad.add(row.where, f"id {row.id or name!r} occurs twice, first in {listed[named[own]].where}; "
                    "make ids unique")  # fmt: skip
        elif known and own != known.id:
            bad.add(row.where, f"{row.input!r} has id {own!r}, but {known.id!r} in {known.where}")
        elif known:
            known.captions |= {folded: text for folded, text in captions.items() if folded not in known.captions}
        else:
            listed[name] = _Listed(row.where, captions, row.split, own)
            named[own] = name
    return listed


def _unreadable(row: Row) -> str | None:
    """What is wrong with the texts of a row, whatever the other rows are."""
    texts = (row.input, *row.captions, row.split or "", row.id or "")
    longest = max(map(len, texts))
    if longest > _LONGEST_TEXT:
        return f"a text of {longest:,} characters; at most {_LONGEST_TEXT:,} are read"
    if not row.input.strip():
        return "an empty input; name one"
    return next(filter(None, map(not_unicode, texts)), None)


def _spread(listed: Mapping[str, _Listed], limit: int) -> dict[str, _Listed]:
    """About `limit` entries, evenly spaced within each split, with at least four from each."""
    if limit >= len(listed):
        return dict(listed)
    chosen: set[str] = set()
    for split in {entry.split for entry in listed.values()}:
        names = [name for name, entry in listed.items() if entry.split == split]
        chosen |= set(spread(names, max(4, len(names) * limit // len(listed))))
    return {name: entry for name, entry in listed.items() if name in chosen}


def _checked(
    listed: Mapping[str, _Listed], source: InputSource, bad: BadRows, cache: Path | None
) -> dict[str, _Listed]:
    known = _Known(cache, source)
    usable = {}
    try:
        for name, entry in track(list(listed.items()), "reading inputs"):
            try:
                entry.digest = known.digest(name)
            except DataError as error:
                bad.add(entry.where, error)
            else:
                usable[name] = entry
    finally:
        known.save()
    return usable


class _Known:
    """The digests of files that have been checked before and have not changed since."""

    def __init__(self, folder: Path | None, source: InputSource) -> None:
        self._source, self._unsaved = source, 0
        self._path: Path | None = None
        self._seen: dict[str, Any] = {}
        if folder is not None and source.place is not None:
            checked = [source.place, type(source).__name__, source.version, *filter(None, [source.checks])]
            self._path = folder / f"{digest(checked)}.json"
            try:
                seen = json.loads(self._path.read_text(encoding="utf-8"))
                self._seen = seen if isinstance(seen, dict) else {}
            except (OSError, ValueError):
                pass  # nothing is known yet, so everything is checked

    def digest(self, entry: str) -> str:
        stamp = self._source.stamp(entry)
        match self._seen.get(entry):
            case [before, str(found)] if stamp is not None and before == stamp:
                self._source.require_alike(entry)
                return found
        found = self._source.check(entry)
        if stamp is not None:
            self._seen[entry] = [stamp, found]
            self._unsaved += 1
            if self._unsaved >= _SAVE_EVERY:
                self.save()
        return found

    def save(self) -> None:
        if self._path is None or not self._unsaved:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"data.cache={self._path.parent}: cannot write there ({error.strerror})") from error
        write_json(self._path, self._seen)
        self._unsaved = 0


def _content(name: str, entry: _Listed, source: InputSource, case: Case) -> str:
    """What copies of an input have in common, whatever their names."""
    return in_case(str(source.read(name)), case) if source.modality == "text" else entry.digest


def _apart(listed: Mapping[str, _Listed], source: InputSource, case: Case, bad: BadRows) -> dict[str, _Listed]:
    """The rows without those that copy an input of an earlier split: what is held out has to be new."""
    first: dict[str, _Listed] = {}
    apart: set[str] = set()
    for split in SPLITS:
        own = {name: entry for name, entry in listed.items() if entry.split == split}
        for name, entry in own.items():
            known = first.setdefault(_content(name, entry, source, case), entry)
            if known.split == split:
                apart.add(name)
            else:
                bad.add(entry.where, f"the same input as in {known.where}, but in split {split} and not {known.split}; "
                        "what is held out has to be new, so leave one of them out")  # fmt: skip
    return {name: entry for name, entry in listed.items() if name in apart}


def _given(listed: Mapping[str, _Listed], bad: BadRows) -> dict[Split, list[int]]:
    splits: dict[Split, list[int]] = {name: [] for name in SPLITS}
    for row, entry in enumerate(listed.values()):
        for split, members in splits.items():
            if split == entry.split:
                members.append(row)
    for split, members in splits.items():
        if not members:
            raise bad.unusable(f"no usable row has split {split}; each of {', '.join(SPLITS)} needs one")
    return splits


def _draw(
    listed: Mapping[str, _Listed], source: InputSource, case: Case, drawn: Drawn, bad: BadRows
) -> dict[Split, list[int]]:
    """A random split in which copies of an input, whatever their names, are always in the same split."""
    groups: dict[str, list[int]] = {}
    for row, (name, entry) in enumerate(listed.items()):
        groups.setdefault(_content(name, entry, source, case), []).append(row)
    order = random.Random(drawn.seed).sample(list(groups.values()), len(groups))
    splits: dict[Split, list[int]] = {"train": order.pop() if order else [], "test": [], "val": []}
    wanted: dict[Split, float] = {"test": drawn.test_share, "val": drawn.val_share}
    for group in order:
        short: Split = next(
            (name for name, share in wanted.items() if len(splits[name]) < share * len(listed)), "train"
        )
        splits[short] += group
    if not all(splits.values()):
        raise bad.unusable(f"{len(groups)} different inputs are too few to draw three splits from")
    return splits
