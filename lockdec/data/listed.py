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
from lockdec.data.captions import SPLITS, CaptionSet, Input, Split, digest, fold
from lockdec.data.sources import InputSource
from lockdec.errors import ConfigError, DataError, StoreError
from lockdec.store.writing import write_json

OnBad: TypeAlias = Literal["error", "skip"]

_LONGEST_NAME = 200  # bytes of an id, which names files
_LONGEST_TEXT = 100_000  # characters of an input or a caption
_SAVE_EVERY = 5_000  # inputs checked between two writes of the cache


@dataclass(frozen=True, slots=True)
class Row:
    """The content of one row of a data file.

    Attributes:
        where: file and row, for errors.
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
    """Handles rows that cannot be used: either the first one is an error, or each is skipped and recorded.

    Attributes:
        left_out: the problems of the skipped rows.
    """

    def __init__(self, on_bad: OnBad) -> None:
        self.on_bad = on_bad
        self.left_out: list[str] = []

    def add(self, where: str, problem: object) -> None:
        """Record a row that cannot be used.

        Raises:
            DataError: unless bad rows are skipped.
        """
        line = f"{where}: {problem}"
        if self.on_bad == "error":
            raise DataError(f"{line} (data.on_bad=skip leaves such rows out)")
        self.left_out.append(line)


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
    captions: dict[str, None]
    split: str | None
    id: str | None
    digest: str = field(default="")


class ListedCaptions(CaptionSet):
    """Inputs and captions from rows. Rows that name the same input give it several references.

    Args:
        rows: the rows of the data file, in order.
        source: reads the inputs that the rows name.
        bad: receives the rows that cannot be used.
        what: the name of the data, for errors.
        drawn: how to split if no row names its split; identical inputs are always in the same split.
        limit: approximate number of inputs to use, spread evenly over each split; None for all.
        cache: a folder that remembers which files have been checked; None to check them every time.

    Raises:
        DataError: a row cannot be used, or a split would be empty.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        source: InputSource,
        bad: BadRows,
        *,
        what: str,
        drawn: Drawn,
        limit: int | None = None,
        cache: str | None = None,
    ) -> None:
        if limit is not None and limit < 8:
            raise ConfigError(f"data.limit={limit}: at least 8 inputs, or null for all")
        listed = _merged(rows, bad)
        if limit is not None:
            listed = _spread(listed, limit)
        listed = _checked(listed, source, bad, Path(cache) if cache else None)
        if len(listed) < 3:
            raise DataError(f"{what}: {len(listed)} usable inputs; at least one each for "
                            "train, val and test is needed")  # fmt: skip
        splits = _given(listed, what) if any(entry.split for entry in listed.values()) else _draw(listed, drawn)
        self.entries = tuple(listed)
        self.source = source
        self.skipped = tuple(bad.left_out)
        digests = [entry.digest for entry in listed.values()]
        super().__init__(
            ids=[usable_id(entry.id or name) for name, entry in listed.items()],
            captions=[tuple(entry.captions) for entry in listed.values()],
            splits=splits,
            modality=source.modality,
            inputs_fingerprint=digest([type(source).__name__, source.version, digests]),
        )

    def inputs(self, indices: Sequence[int]) -> list[Input]:
        """Read the inputs of these rows."""
        return [self.source.read(self.entries[row]) for row in indices]


def usable_id(name: str) -> str:
    """The name as a valid file name; different names stay different."""
    usable = re.sub(r'[\x00-\x1f\x7f/\\%:*?"<>|]', lambda found: f"%{ord(found[0]):02X}", name)
    return usable if len(usable.encode()) <= _LONGEST_NAME else hashlib.sha256(name.encode()).hexdigest()


def _merged(rows: Iterable[Row], bad: BadRows) -> dict[str, _Listed]:
    listed: dict[str, _Listed] = {}
    named: dict[str, str] = {}  # input by id
    rows = list(rows)
    with_split = any(row.split is not None for row in rows)
    for row in rows:
        captions = dict.fromkeys(fold(caption) for caption in row.captions if caption.strip())
        known = listed.get(row.input)
        longest = max(len(text) for text in (row.input, *row.captions, ""))
        if not row.input.strip():
            bad.add(row.where, "an empty input; name one")
        elif longest > _LONGEST_TEXT:
            bad.add(row.where, f"a text of {longest:,} characters; at most {_LONGEST_TEXT:,} are read")
        elif not captions:
            bad.add(row.where, f"an empty caption for {row.input!r}; every input needs at least one")
        elif row.split is not None and row.split not in SPLITS:
            bad.add(row.where, f"split {row.split!r} is not one of: {', '.join(SPLITS)}")
        elif with_split and row.split is None:
            bad.add(row.where, f"{row.input!r} has no split, but other rows have; one of: {', '.join(SPLITS)}")
        elif known and known.split != row.split:
            bad.add(row.where, f"{row.input!r} is in split {row.split}, but in {known.split} in {known.where}")
        elif row.id is not None and named.get(row.id, row.input) != row.input:
            bad.add(row.where, f"id {row.id!r} occurs twice, first in {listed[named[row.id]].where}; make ids unique")
        elif known and row.id != known.id:
            bad.add(row.where, f"{row.input!r} has id {row.id!r}, but {known.id!r} in {known.where}")
        elif known:
            known.captions |= captions
        else:
            listed[row.input] = _Listed(row.where, captions, row.split, row.id)
            named |= {} if row.id is None else {row.id: row.input}
    return listed


def _spread(listed: Mapping[str, _Listed], limit: int) -> dict[str, _Listed]:
    """About `limit` entries, evenly spaced within each split, with at least four from each."""
    if limit >= len(listed):
        return dict(listed)
    chosen: set[str] = set()
    for split in {entry.split for entry in listed.values()}:
        names = [name for name, entry in listed.items() if entry.split == split]
        count = min(len(names), max(4, len(names) * limit // len(listed)))
        chosen |= {names[index * len(names) // count] for index in range(count)}
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
            self._path = folder / f"{digest([source.place, type(source).__name__, source.version])}.json"
            try:
                seen = json.loads(self._path.read_text(encoding="utf-8"))
                self._seen = seen if isinstance(seen, dict) else {}
            except (OSError, ValueError):
                pass  # nothing is known yet, so everything is checked

    def digest(self, entry: str) -> str:
        stamp = self._source.stamp(entry)
        match self._seen.get(entry):
            case [before, str(found)] if stamp is not None and before == stamp:
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


def _given(listed: Mapping[str, _Listed], what: str) -> dict[Split, list[int]]:
    splits: dict[Split, list[int]] = {name: [] for name in SPLITS}
    for row, entry in enumerate(listed.values()):
        for split, members in splits.items():
            if split == entry.split:
                members.append(row)
    for split, members in splits.items():
        if not members:
            raise DataError(f"{what}: no usable row has split {split}; each of {', '.join(SPLITS)} needs one")
    return splits


def _draw(listed: Mapping[str, _Listed], drawn: Drawn) -> dict[Split, list[int]]:
    """A random split in which copies of an input, whatever their names, are always in the same split."""
    groups: dict[str, list[int]] = {}
    for row, entry in enumerate(listed.values()):
        groups.setdefault(entry.digest, []).append(row)
    order = random.Random(drawn.seed).sample(list(groups.values()), len(groups))
    splits: dict[Split, list[int]] = {"train": order.pop() if order else [], "test": [], "val": []}
    wanted: dict[Split, float] = {"test": drawn.test_share, "val": drawn.val_share}
    for group in order:
        short: Split = next(
            (name for name, share in wanted.items() if len(splits[name]) < share * len(listed)), "train"
        )
        splits[short] += group
    if not all(splits.values()):
        raise DataError(f"{len(groups)} different inputs are too few to draw three splits from")
    return splits
