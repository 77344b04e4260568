"""Icons of three collections with their names, read from a wheel that is never installed. Needs no torch.

The wheel of mkdocs-material carries the SVG files of Material Design Icons (Pictogrammers, Apache-2.0), Font Awesome
Free (Fonticons, CC BY 4.0) and Octicons (GitHub, MIT). Logos (Simple Icons, the brands of Font Awesome) are left out.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import random
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os.path import expanduser
from pathlib import Path
from typing import Literal, TypeAlias

from lockdec.data.captions import CaptionSet, Case, Input, Split
from lockdec.data.drawings import draw, require_resolution, svg_text
from lockdec.data.packaged import how_to_fetch
from lockdec.data.splits import sizes
from lockdec.errors import ConfigError, DataError

IconSplit: TypeAlias = Literal["random", "concept"]

_FOLDER = "material/templates/.icons/"
_FILE = re.compile(rf"{re.escape(_FOLDER)}(material|fontawesome/solid|fontawesome/regular|octicons)/([a-z0-9-]+)\.svg")
_SIZED = re.compile(r"(.+)-(\d+)")  # an octicon: "alert-fill-24"
_OUTLINE, _FILL = "outline", "fill"
_UNSAID = {  # words of a collection's names that say which of several drawings of one thing it is, and not what differs
    "material": "variant",
    "fontawesome/solid": "alt",
    "fontawesome/regular": "alt",
    "octicons": _FILL,  # the others say that they are drawn with lines
}
_LARGEST = 1 << 20  # bytes of an SVG file; the largest icon has about 3,000


@dataclass(frozen=True)
class Icon:
    """One file.

    Attributes:
        id: its collection, and its name there.
        words: its caption.
    """

    id: str
    words: tuple[str, ...]

    @property
    def subject(self) -> tuple[str, ...]:
        """The words apart from the style, sorted: each collection puts "circle arrow up" in an order of its own."""
        return tuple(sorted(word for word in self.words if word != _OUTLINE))


class Icons(CaptionSet):
    """Black icons on white, each captioned by its name: "calendar arrow left outline".

    A name says what is drawn, and "outline" where it is drawn with lines and not filled. Files with equal content are
    one input with several references, since Font Awesome keeps older names ("house", "home"). Icons that differ
    only in style, within and between collections, are in one split.

    Args:
        path: the wheel of mkdocs-material.
        split: "random" holds out any icons; "concept" those of the names with one first word, such as all calendars.
        split_seed: seed of the split.
        resolution: side of the square RGB images, in pixels.
        val: how many icons to hold out for validation.
        test: how many icons to hold out for the reported figures.
        limit: use only this many icons; val and test are then at most an eighth of it.
        case: makes no difference: names are in lower case.

    Raises:
        ConfigError: a value of `data.*` is out of range for these icons.
        DataError: the wheel is not there, or is damaged or another one.
    """

    def __init__(
        self,
        path: str,
        split: IconSplit = "random",
        split_seed: int = 0,
        resolution: int = 128,
        val: int = 400,
        test: int = 400,
        limit: int | None = None,
        case: Case = "lower",
    ) -> None:
        require_resolution(resolution)
        self.resolution, self._wheel = resolution, Path(expanduser(path))
        drawings: dict[str, list[Icon]] = {}  # by content
        for svg, icon in _icons(self._wheel):
            drawings.setdefault(svg, []).append(icon)
        _, val, test = sizes("icons", len(drawings), limit, val, test)
        if limit is not None:
            drawings = {svg: drawings[svg] for svg in random.Random(0).sample(list(drawings), limit)}
        self._svgs = list(drawings)
        self.icons = tuple(tuple(same) for same in drawings.values())
        super().__init__(
            ids=[same[0].id for same in self.icons],
            captions=[tuple(dict.fromkeys(" ".join(icon.words) for icon in same)) for same in self.icons],
            splits=_split(self._groups(split), split_seed, val, test, exact=limit is None),
            modality="image",
            inputs_fingerprint=self._hash(),
            case=case,
        )

    @property
    def prompt(self) -> str:
        """What leads to the name of an icon."""
        return "An icon of:"

    def inputs(self, indices: Sequence[int]) -> list[Input]:
        """Render the icons of these rows on white as RGB images of `resolution` pixels a side."""
        return [draw(self._svgs[row], f"{self._wheel} {self.ids[row]}", self.resolution) for row in indices]

    def _groups(self, split: IconSplit) -> list[list[int]]:
        """The rows that have to stay together: they share a subject, or for "concept", a first word."""
        rows: dict[tuple[str, ...], int] = {}  # one row of each subject and first word
        parent = list(range(len(self.icons)))

        def root(row: int) -> int:
            while parent[row] != row:
                row = parent[row] = parent[parent[row]]
            return row

        for row, same in enumerate(self.icons):
            for icon in same:
                for shared in (icon.subject, *([("", icon.words[0])] if split == "concept" else [])):
                    parent[root(row)] = root(rows.setdefault(shared, row))
        groups: dict[int, list[int]] = {}
        for row in range(len(parent)):
            groups.setdefault(root(row), []).append(row)
        return list(groups.values())

    def _hash(self) -> str:
        renderer = importlib.metadata.version("resvg_py")
        total = hashlib.sha256(f"resvg_py {renderer} white {self.resolution}".encode())
        for svg in self._svgs:
            total.update(f"\0{len(svg)}\0{svg}".encode())
        return total.hexdigest()


def _split(groups: Sequence[list[int]], seed: int, val: int, test: int, exact: bool) -> dict[Split, list[int]]:
    """Hold out whole groups until the sizes are reached; a group that no longer fits stays in train.

    Raises:
        ConfigError: fewer rows can be held out, none at all or, if `exact`, not all of them.
    """
    splits: dict[Split, list[int]] = {"test": [], "val": [], "train": []}
    wanted: dict[Split, int] = {"test": test, "val": val, "train": sum(map(len, groups))}
    for group in random.Random(seed).sample(groups, len(groups)):
        next(rows for name, rows in splits.items() if len(rows) + len(group) <= wanted[name]).extend(group)
    for name, rows in splits.items():
        if name != "train" and (not rows or (exact and len(rows) < wanted[name])):
            raise ConfigError(f"data.{name}={wanted[name]}: only {len(rows)} icons can be held out for it")
    return splits


def _icons(wheel: Path) -> Iterator[tuple[str, Icon]]:
    """The text of each SVG file, and what it is, in the order of their names.

    Raises:
        DataError: the wheel is not there, is damaged or has no icons.
    """
    if not wheel.is_file():
        command = how_to_fetch(wheel)
        raise DataError(f"data.path={wheel}: " + (f"not fetched yet: {command}" if command else "no such file"))
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = _named(archive.namelist())
            if not names:
                raise DataError(f"{wheel}: no icons in it; it has to be the wheel of mkdocs-material")
            for member, icon in sorted(names.items(), key=lambda item: item[1].id):
                with archive.open(member) as file:
                    content = file.read(_LARGEST + 1)
                if len(content) > _LARGEST:
                    raise DataError(f"{wheel} {member}: more than {_LARGEST} bytes, which is no icon")
                yield svg_text(content, f"{wheel} {member}"), icon
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{wheel}: cannot be read as a wheel ({error})") from error


def _named(members: Iterable[str]) -> dict[str, Icon]:
    """What the files in the folders of the three collections are, by file; of an octicon, the largest drawing."""
    found = [(member, match[1], match[2]) for member in members if (match := _FILE.fullmatch(member))]
    octicons: dict[str, tuple[int, str]] = {}
    icons: dict[str, Icon] = {}
    for member, collection, name in found:
        if collection != "octicons":
            icons[member] = _icon(collection, name, lines=collection == "fontawesome/regular")
        elif sized := _SIZED.fullmatch(name):
            octicons[sized[1]] = max(octicons.get(sized[1], (0, "")), (int(sized[2]), member))
    for name, (_, member) in octicons.items():
        icons[member] = _icon("octicons", name, lines=f"{name}-{_FILL}" in octicons)
    return icons


def _icon(collection: str, name: str, lines: bool) -> Icon:
    words = [word for word in name.split("-") if word != _UNSAID[collection]] or [name]
    if lines and _OUTLINE not in words:
        words.append(_OUTLINE)
    return Icon(f"{collection.replace('/', '-')}-{name}", tuple(words))
