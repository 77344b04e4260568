"""The gallery: inputs with their references, the captions of several captioners, and attention maps."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lockdec.evaluation.metrics import words
from lockdec.report.results import AttentionMap, Captioned, Run, drawing, read_attention, read_captions

MOST_INPUTS = 24
MOST_BYTES = 1_500_000
MOST_WEIGHTS = 400_000  # of all attention maps together
LONGEST = 2_000  # characters of a caption
FULL_COLOUR = 4.0  # attention this many times the uniform weight, or more, has full colour


@dataclass(frozen=True)
class Shown:
    """One caption, cut into pieces that do and do not occur in the references."""

    who: str
    pieces: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class WordAttention:
    """Cross-attention while a word was generated: (column, row, opacity) of each state worth drawing."""

    word: str
    squares: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True)
class Exhibit:
    """One evaluated input and its captions. `picture` is a PNG in base64, empty without a drawing."""

    id: str
    picture: Markup
    references: tuple[str, ...]
    captions: tuple[Shown, ...]
    grid: tuple[int, int]
    attention: tuple[WordAttention, ...]


def exhibits(columns: Sequence[tuple[str, Run, str]]) -> tuple[list[Exhibit], list[str]]:
    """The gallery, and notes about captions that could not be read.

    Args:
        columns: what is shown, as (label, run, name of a caption in captions.jsonl). The run of the first column
            gives the inputs, references, drawings and attention maps.
    """
    notes: list[str] = []
    by_run: dict[str, dict[str, Captioned]] = {}
    for _, run, _ in columns:
        if run.label not in by_run:
            rows, complaints = read_captions(run)
            by_run[run.label] = {row.id: row for row in rows}
            notes += complaints
    if not columns:
        return [], notes
    shown = columns[0][1]
    rows = list(by_run[shown.label].values())
    pictures, total = dict[str, Markup](), 0
    for row in rows:
        content = drawing(shown, row.id) if len(pictures) < MOST_INPUTS else None
        if content is not None and total + len(content) <= MOST_BYTES:
            total += len(content)
            pictures[row.id] = Markup(base64.b64encode(content).decode())  # whatever it may look like
    chosen = [row for row in rows if row.id in pictures] or rows[:MOST_INPUTS]
    attention, left = dict[str, AttentionMap](), MOST_WEIGHTS
    maps = read_attention(shown)
    for row in chosen:
        if (found := maps.get(row.id)) and (size := len(found.words) * math.prod(found.grid)) <= left:
            attention[row.id] = found
            left -= size
        elif found:
            notes.append(f"{shown.label}: the attention of {row.id} is not drawn; the page would become too large")
    return [_exhibit(row, pictures, attention, columns, by_run) for row in chosen], notes


def _exhibit(
    row: Captioned,
    pictures: Mapping[str, Markup],
    attention: Mapping[str, AttentionMap],
    columns: Sequence[tuple[str, Run, str]],
    by_run: Mapping[str, Mapping[str, Captioned]],
) -> Exhibit:
    references = tuple(map(_shortened, row.references))
    wanted = {word for reference in references for word in words(reference)}
    captions = []
    for who, run, kind in columns:
        other = by_run[run.label].get(row.id)
        if other is not None and kind in other.captions:
            captions.append(Shown(who, _pieces(other.captions[kind], wanted)))
    found = attention.get(row.id)
    return Exhibit(
        row.id,
        pictures.get(row.id, Markup()),
        references,
        tuple(captions),
        found.grid if found else (0, 0),
        tuple(_squares(word, weights, found.grid) for word, weights in zip(found.words, found.weights, strict=True))
        if found
        else (),
    )


def _pieces(caption: str, wanted: set[str]) -> tuple[tuple[str, bool], ...]:
    pieces = re.split(r"(\s+)", _shortened(caption.strip()))
    return tuple((piece, bool(wanted.intersection(words(piece)))) for piece in pieces if piece)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _squares(word: str, weights: Sequence[float], grid: tuple[int, int]) -> WordAttention:
    squares = []
    for number, weight in enumerate(weights):
        opacity = round(min(1.0, weight * len(weights) / FULL_COLOUR), 2)
        if opacity > 0.02:
            squares.append((number % grid[1], number // grid[1], opacity))
    return WordAttention(word, tuple(squares))
