"""Pictures of attention as HTML: what each word of a caption attends to in its input."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from lockdec.data.captions import Input
from lockdec.errors import visible
from lockdec.evaluation.attention_maps import Attention
from lockdec.evaluation.scoring import Word
from lockdec.store.writing import write_text

FULL_COLOUR = 4.0  # attention this many times the uniform weight, or more, has full colour
_LEAST = 0.02  # opacity worth drawing
_SIDE = 96  # pixels of the picture under each word
_COLOUR = "#d62728"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Attention</title>
<style>body {{ font-family: sans-serif; margin: 2em; }}</style></head>
<body><h1>Attention</h1>
<p>The colour shows what each word attends to: full colour is four times the uniform weight or more. Below a word stands
its evidence in nats: how much likelier the input makes it than the words before it do alone.</p>
{figures}
</body></html>
"""


@dataclass(frozen=True)
class Figure:
    """A picture of attention.

    Attributes:
        html: a `<figure>` that needs nothing beside it: no scripts, no style sheets, no other files.
    """

    html: str

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self.html

    def save(self, path: str | Path) -> None:
        """Write it as a page of its own; StoreError if the file cannot be written."""
        save([self], path)


def save(figures: Sequence[Figure], path: str | Path) -> None:
    """Write several figures as one page; StoreError if the file cannot be written."""
    write_text(Path(path), _PAGE.format(figures="\n".join(figure.html for figure in figures)))


def draw(given: Input, caption: str, words: Sequence[Word], attention: Attention, name: str = "") -> Figure:
    """The figure of one captioned input.

    A picture whose states form a grid is shown once for each word, with states that belong to no place beside it. A
    text is a row of its tokens, and all other inputs are a row of their states, for each word. Where a single state
    gets all attention, or a bridge attends to no states, the figure says that there is nothing to draw.

    Args:
        name: of the input, in the caption of the figure.
    """
    states = attention.weights.shape[1]
    title = f"{_text(name)}: " if name else ""
    if states == 0:
        body = (
            "<p>No attention to the states of the input can be drawn: this decoder has none, or that of several plugs "
            "at once.</p>"
        )
    elif states == 1:
        body = (
            "<p>The encoder gives one state for this input, and all attention goes to it: there is nothing to draw.</p>"
        )
    elif not words:
        body = "<p>The caption is empty: no word attends to anything.</p>"
    elif isinstance(given, Image.Image) and attention.grid is not None:
        body = _pictures(given, words, attention)
    else:
        body = _rows(words, attention)
        if isinstance(given, Image.Image):
            body = (
                f"<p>The {states} states of this picture form no grid; they are numbered as the encoder does.</p>{body}"
            )
    return Figure(
        f'<figure style="margin: 0 0 2em"><figcaption>{title}<b>{_text(caption)}</b></figcaption>{body}</figure>'
    )


def _pictures(picture: Image.Image, words: Sequence[Word], attention: Attention) -> str:
    grid = attention.grid
    assert grid is not None
    small, file = picture.convert("RGB").resize((_SIDE, _SIDE)), io.BytesIO()
    small.save(file, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    shown = []
    for word, weights in zip(words, attention.weights.tolist(), strict=True):
        opacities = [_opacity(weight, len(weights)) for weight in weights]
        squares = [
            f'<rect x="{cell % grid.columns}" y="{cell // grid.columns}" width="1" height="1" opacity="{opacity}"/>'
            for cell, opacity in enumerate(opacities[grid.apart :])
            if opacity > _LEAST
        ]
        apart = [
            f'<rect x="{-1.5}" y="{1.5 * number}" width="1" height="1" opacity="{opacity}"/>'
            f'<rect x="{-1.5}" y="{1.5 * number}" width="1" height="1" fill="none" stroke="#888" stroke-width="0.05"/>'
            for number, opacity in enumerate(opacities[: grid.apart])
        ]
        left = 2 if apart else 0
        wide = _SIDE * (1 + left / grid.columns)
        shown.append(
            f'<div style="display: inline-block; text-align: center; margin: 0.3em">'
            f'<svg viewBox="{-left} 0 {grid.columns + left} {grid.rows}" width="{wide:.0f}" '
            f'height="{_SIDE}" preserveAspectRatio="none" fill="{_COLOUR}" role="img" '
            f'aria-label="attention at {_text(word.text)}">'
            f'<image href="{source}" width="{grid.columns}" height="{grid.rows}" preserveAspectRatio="none"/>'
            f"{''.join(squares)}{''.join(apart)}</svg><br>{_below(word)}</div>"
        )
    note = ""
    if grid.apart:
        what = "its class token" if grid.apart == 1 else f"{grid.apart} states (its class token and registers)"
        note = f"<p>Beside each picture: {what}, which belong{'s' if grid.apart == 1 else ''} to no place.</p>"
    return note + "".join(shown)


def _rows(words: Sequence[Word], attention: Attention) -> str:
    states = attention.weights.shape[1]
    labels = attention.labels or [str(number) for number in range(1, states + 1)]
    head = "".join(f'<th scope="col" style="font-weight: normal">{_text(label)}</th>' for label in labels)
    rows = []
    for word, weights in zip(words, attention.weights.tolist(), strict=True):
        cells = "".join(
            f'<td style="background: rgb(214 39 40 / {_opacity(weight, states)})" title="{weight:.3f}">&nbsp;</td>'
            for weight in weights
        )
        rows.append(f'<tr><th scope="row" style="text-align: left">{_below(word)}</th>{cells}</tr>')
    return f'<table style="border-collapse: collapse"><tr><td></td>{head}</tr>{"".join(rows)}</table>'


def _opacity(weight: float, states: int) -> float:
    return round(min(1.0, weight * states / FULL_COLOUR), 2)


def _below(word: Word) -> str:
    return f'{_text(word.text)} <small style="color: #666">{word.evidence:+.1f}</small>'


def _text(text: str) -> str:
    return escape(visible(text))
