"""The captions beside what they describe: drawing, references, what several captioners say, attention."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lockdec.evaluation.metrics import words
from lockdec.report.results import Captioned, Look, Run, drawing, read_attention, read_captions

MOST_INPUTS = 24
MOST_BYTES = 1_500_000
FULL_COLOUR = 4.0  # attention this many times the uniform weight, or more, is drawn in full colour


@dataclass(frozen=True)
class Said:
    """One caption, cut into pieces that do and do not occur in the references."""

    who: str
    pieces: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class WordLook:
    """Where the decoder looked when it said a word: (column, row, opacity) of each state worth drawing."""

    word: str
    squares: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True)
class Exhibit:
    """One test input and what was said about it. `picture` is a PNG in base64, empty without a drawing."""

    id: str
    picture: str
    references: tuple[str, ...]
    said: tuple[Said, ...]
    grid: tuple[int, int]
    looks: tuple[WordLook, ...]


def exhibits(columns: Sequence[tuple[str, Run, str]]) -> tuple[list[Exhibit], list[str]]:
    """The gallery, and notes about captions that could not be read.

    Args:
        columns: what is shown, as (who says it, run, which caption of captions.jsonl). The first column's run
            gives the inputs, references, drawings and attention.
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
    pictures, total = dict[str, str](), 0
    for row in rows:
        content = drawing(shown, row.id) if len(pictures) < MOST_INPUTS else None
        if content is not None and total + len(content) <= MOST_BYTES:
            total += len(content)
            pictures[row.id] = base64.b64encode(content).decode()
    looks = read_attention(shown)
    chosen = [row for row in rows if row.id in pictures] or rows[:MOST_INPUTS]
    return [_exhibit(row, pictures, looks, columns, by_run) for row in chosen], notes


def _exhibit(
    row: Captioned,
    pictures: Mapping[str, str],
    looks: Mapping[str, Look],
    columns: Sequence[tuple[str, Run, str]],
    by_run: Mapping[str, Mapping[str, Captioned]],
) -> Exhibit:
    wanted = {word for reference in row.references for word in words(reference)}
    said = []
    for who, run, kind in columns:
        other = by_run[run.label].get(row.id)
        if other is not None and kind in other.captions:
            said.append(Said(who, _pieces(other.captions[kind], wanted)))
    look = looks.get(row.id)
    return Exhibit(
        row.id,
        pictures.get(row.id, ""),
        row.references,
        tuple(said),
        look.grid if look else (0, 0),
        tuple(_squares(word, weights, look.grid) for word, weights in zip(look.words, look.weights, strict=True))
        if look
        else (),
    )


def _pieces(caption: str, wanted: set[str]) -> tuple[tuple[str, bool], ...]:
    pieces = re.split(r"(\s+)", caption.strip())
    return tuple((piece, bool(wanted.intersection(words(piece)))) for piece in pieces if piece)


def _squares(word: str, weights: Sequence[float], grid: tuple[int, int]) -> WordLook:
    squares = []
    for number, weight in enumerate(weights):
        opacity = round(min(1.0, weight * len(weights) / FULL_COLOUR), 2)
        if opacity > 0.02:
            squares.append((number % grid[1], number // grid[1], opacity))
    return WordLook(word, tuple(squares))
