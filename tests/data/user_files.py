"""Folders as a user might have them, written small: pictures, texts, arrays."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lockdec.data.openmoji import OpenMoji


def write_csv(folder: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = ("input", "caption")) -> Path:
    """A captions.csv."""
    folder.mkdir(exist_ok=True)
    path = folder / "captions.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_lines(folder: Path, *records: object) -> Path:
    """A captions.jsonl."""
    folder.mkdir(exist_ok=True)
    path = folder / "captions.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def write_pictures(folder: Path, count: int = 24, side: int = 32) -> list[tuple[str, str]]:
    """Drawings as PNG files in `pictures/`; their names below the folder, and captions."""
    drawings = OpenMoji(split="random", resolution=side, limit=max(count, 32))
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rows = []
    for row, picture in enumerate(drawings.inputs(range(count))):
        name = f"pictures/{drawings.ids[row]}.png"
        picture.save(folder / name)  # type: ignore[union-attr]
        rows.append((name, drawings.captions[row][0]))
    return rows


def write_arrays(folder: Path, count: int = 24, channels: int = 6) -> list[tuple[str, str]]:
    """Arrays of one to four states as .npy files; their names, and captions that say how many states."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        states = 1 + number % 4
        np.save(folder / f"{number}.npy", rng.normal(size=(states, channels)).astype(np.float32))
        rows.append((f"{number}.npy", f"{['one', 'two', 'three', 'four'][states - 1]} states of number {number}"))
    return rows


TEXTS = [(f"text {number}", f"caption {number}") for number in range(20)]
SPLIT = [("a", "x", "train"), ("b", "y", "val"), ("c", "z", "test")]


def write_texts(folder: Path, *rows: tuple[str, ...], header: tuple[str, ...] = ("input", "caption")) -> Path:
    """A captions.csv of these rows; returns the folder."""
    write_csv(folder, rows, header)
    return folder


def decomposed(text: str) -> str:
    """The text with each accent as a character of its own, as macOS writes names."""
    return unicodedata.normalize("NFD", text)
