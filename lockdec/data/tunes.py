"""Fiddle, flute and fife tunes in ABC notation, each with a caption. Needs no torch.

The corpus of music21 contains three old collections: Ryan's Mammoth Collection, O'Neill's Music of Ireland and Aird's
Selection of Airs. Its files are read; music21 itself is not imported.
"""

from __future__ import annotations

import importlib.util
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from lockdec.data.captions import Case
from lockdec.data.splits import random_split, sizes
from lockdec.data.translation import TextPairs
from lockdec.errors import ConfigError, DataError

Collection: TypeAlias = Literal["ryan", "oneill", "aird"]

_FOLDERS: Mapping[str, str] = {"ryan": "ryansMammoth", "oneill": "oneills1850", "aird": "airdsAirs"}
_RHYTHMS = (
    "highland fling", "slip jig", "jig", "reel", "hornpipe", "strathspey", "clog", "fling", "walkaround", "slide",
    "waltz", "march", "quickstep", "minuet", "gavotte", "air",
)  # fmt: skip
_SAME_RHYTHM = {"slipjig": "slip jig", "quick step": "quickstep", "quick march": "march", "minuetto": "minuet"}
_MODES = {
    "": "major", "maj": "major", "ion": "major", "m": "minor", "min": "minor", "aeo": "minor", "dor": "dorian",
    "mix": "mixolydian", "phr": "phrygian", "lyd": "lydian", "loc": "locrian",
}  # fmt: skip
_METRES = {"C": "4/4", "C|": "2/2"}
_FIELD = re.compile(r"([A-Za-z]):(.*)")
_CHANGE = re.compile(r"^[KLMV]:|\[[KLMV]:", re.MULTILINE)  # of key, unit, metre or voice in the middle of a tune
_NOT_MUSIC = re.compile(r"%.*|\"[^\"\n]*\"|![^!\n]*!|\{[^}\n]*\}|\[[A-Za-z]:[^\]\n]*\]|^[A-Za-z]:.*", re.MULTILINE)
_SLUR = re.compile(r"\((?!\d)|\)")
_ORNAMENT = re.compile(r"[^A-Ga-gxz0-9|:\[\](,'/<>^_=\- ]")
_BAR_LINE = re.compile(r"([|:\]]*\|[|:\]]*|::+)")


@dataclass(frozen=True)
class Tune:
    """One tune.

    Attributes:
        name: collection and number.
        music: its first bars, in lower case. A comma lowers a note by an octave, so "C" in ABC becomes "c,".
        caption: such as "a hornpipe in d major, 2/4", or "a tune in ..." if the book does not name the rhythm.
    """

    name: str
    music: str
    caption: str


class Tunes(TextPairs):
    """The tunes of three collections as texts, captioned by rhythm, key and metre.

    The text of a tune contains nothing of its header. Tunes with the same first bars are one input, so that none is in
    two splits; if the books describe them differently, the input has several references. Tunes in several voices, and
    those whose key the books do not name, are left out.

    Args:
        collections: any of "ryan", "oneill" and "aird"; None for all of them.
        bars: how many of the first bars to include; an upbeat counts as one.
        split_seed: seed of the split.
        val, test: how many tunes to hold out.
        limit: use only this many tunes; val and test are then at most an eighth of it.
        case: makes no difference: tunes and captions are in lower case.

    Raises:
        ConfigError: a value of `data.*` is not available.
        DataError: music21's corpus is not installed.
    """

    def __init__(
        self,
        collections: list[Collection] | None = None,
        bars: int = 9,
        split_seed: int = 0,
        val: int = 400,
        test: int = 400,
        limit: int | None = None,
        case: Case = "lower",
    ) -> None:
        chosen = list(_FOLDERS) if collections is None else list(collections)
        if not chosen or len(set(chosen)) < len(chosen):
            raise ConfigError(f"data.collections={chosen}: one or more of {', '.join(_FOLDERS)}, each once")
        if bars < 1:
            raise ConfigError(f"data.bars={bars}: at least 1")
        tunes: dict[str, tuple[str, list[str]]] = {}
        for tune in (tune for name in chosen for tune in _collection(name, bars)):
            captions = tunes.setdefault(tune.music, (tune.name, []))[1]
            if tune.caption not in captions:
                captions.append(tune.caption)
        texts = list(tunes)
        count, val, test = sizes("tunes", len(texts), limit, val, test)
        if limit is not None:
            texts = random.Random(0).sample(texts, limit)
        super().__init__(
            ids=[tunes[text][0] for text in texts],
            texts=texts,
            translations=[tunes[text][1] for text in texts],
            splits=random_split(count, split_seed, val, test),
            case=case,
        )


def _collection(name: str, bars: int) -> Iterator[Tune]:
    spec = importlib.util.find_spec("music21")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("data=tunes reads the corpus of music21: pip install 'lockdec[music]'")
    folder = Path(spec.submodule_search_locations[0]) / "corpus" / _FOLDERS[name]
    files = sorted(folder.glob("*.abc"))
    if not files:
        raise DataError(f"{folder}: no tunes in it; this music21 has no corpus")
    number = 0
    for path in files:
        for text in re.split(r"^(?=X:)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            number += 1
            if tune := read_tune(text, f"{name}-{number:04d}", bars):
                yield tune


def read_tune(text: str, name: str, bars: int) -> Tune | None:
    """The tune in a piece of ABC; None if there is none, its key is not named, or it has several voices.

    Args:
        text: ABC that starts with "X:".
        name: of the tune.
        bars: how many of the first bars to read; a change of key, metre or unit length ends them early.
    """
    fields: dict[str, list[str]] = {}
    lines = iter(text.splitlines())
    for line in lines:
        if found := _FIELD.match(line):
            fields.setdefault(found[1], []).append(found[2].partition("%")[0].strip())
        if line.startswith("K:"):
            break  # the key ends the header
    key = _key(fields.get("K", [""])[0])
    metre = fields.get("M", [""])[0]
    music = _music("\n".join(lines), bars)
    if key is None or not metre or not music or "V" in fields:
        return None
    rhythm = _rhythm([*fields.get("R", []), *fields.get("G", []), *fields.get("T", [])])
    article = "an" if rhythm == "air" else "a"
    return Tune(name, music, f"{article} {rhythm} in {key}, {_METRES.get(metre, metre)}")


def _music(body: str, bars: int) -> str:
    """The first bars, reduced to notes, rests, lengths and bar lines; empty if there is no note."""
    change = _CHANGE.search(body)
    plain = _NOT_MUSIC.sub("", body[: change.start()] if change else body).replace("\\", " ").replace("\n", " ")
    plain = _ORNAMENT.sub("", _SLUR.sub("", plain))
    plain = re.sub(r"[A-G]", lambda note: f"{note[0].lower()},", plain)
    pieces = [" ".join(piece.split()) for piece in _BAR_LINE.split(plain)]
    taken: list[str] = []
    for piece in pieces:
        if bars == 0:
            break
        is_bar = bool(re.search(r"[a-gxz]", piece))
        bars -= is_bar
        after_bar = bool(taken) and bool(re.search(r"[a-gxz]", taken[-1]))
        if is_bar or (piece and after_bar):  # one bar line between two bars, none before the first
            taken.append(piece)
    return " ".join(taken) if any(re.search("[a-g]", piece) for piece in taken) else ""


def _key(field: str) -> str | None:
    """A key such as "d major", or None if the field names none."""
    found = re.match(r"([A-G])([#b]?)\s*([A-Za-z]*)", field)
    mode = _MODES.get(found[3].lower()[:3]) if found else None
    if found is None or mode is None:
        return None
    return f"{found[1].lower()}{ {'#': ' sharp', 'b': ' flat', '': ''}[found[2]] } {mode}"


def _rhythm(fields: list[str]) -> str:
    """The first rhythm that is named, in the fields for rhythms or in a title; "tune" if none is."""
    for field in fields:
        text = field.lower()
        for other, usual in _SAME_RHYTHM.items():
            text = text.replace(other, usual)
        for rhythm in _RHYTHMS:
            if re.search(rf"\b{rhythm}\b", text):
                return rhythm
    return "tune"
