"""The gallery: captions under their own names, words that occur in a reference, and attention in its place."""

from __future__ import annotations

import json
from pathlib import Path

from lockdec.report import results
from lockdec.report.gallery import LONGEST, exhibits
from tests.report.runs import write_run


def test_each_caption_stands_under_its_own_name_with_the_words_of_the_references(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    row = {"id": "a", "references": ["red apple"], "caption": "Red pear", "locked": "x", "nearest_neighbour": "apple y"}
    (folder / "captions.jsonl").write_text(json.dumps(row))
    (run,) = results.read([folder]).runs
    columns = [
        ("captioner", run, "caption"),
        ("locked", run, "locked"),
        ("nearest_neighbour", run, "nearest_neighbour"),
    ]
    (exhibit,), notes = exhibits(columns)
    assert notes == []
    assert [(shown.who, [piece for piece in shown.pieces if piece[0].strip()]) for shown in exhibit.captions] == [
        ("captioner", [("Red", True), ("pear", False)]),
        ("locked", [("x", False)]),
        ("nearest_neighbour", [("apple", True), ("y", False)]),
    ]


def test_attention_is_drawn_at_the_column_and_row_of_its_state(tmp_path: Path) -> None:
    """A grid of 2 rows and 3 columns, row by row: state 1 is at the top, state 3 begins the second row."""
    folder = write_run(tmp_path / "run")
    (folder / "captions.jsonl").write_text(json.dumps({"id": "a", "references": ["x"], "caption": "up down"}))
    weights = [[0.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1 / 3, 0.0, 2 / 3]]
    line = {"id": "a", "words": ["up", "down"], "grid": [2, 3], "weights": weights}
    (folder / "attention.jsonl").write_text(json.dumps(line))
    (run,) = results.read([folder]).runs
    (exhibit,), _ = exhibits([("captioner", run, "caption")])
    assert exhibit.grid == (2, 3)
    # In full colour from four times the uniform weight of 1/6 on; 1/3 is twice that.
    assert [(word.word, word.squares) for word in exhibit.attention] == [
        ("up", ((1, 0, 1.0),)),
        ("down", ((0, 1, 0.5), (2, 1, 1.0))),
    ]


def test_what_a_stranger_makes_long_is_shown_in_part(tmp_path: Path) -> None:
    """A page of 60 MB came of 2 MB of attention, and half a minute of one long caption."""
    folder = write_run(tmp_path / "run")
    long = "word " * 100_000
    rows = [{"id": str(number), "references": [long], "caption": long} for number in range(3)]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    maps = [
        {"id": str(number), "words": ["a"], "grid": [500, 500], "weights": [[1.0] * 250_000]} for number in range(3)
    ]
    (folder / "attention.jsonl").write_text("\n".join(map(json.dumps, maps)))
    (run,) = results.read([folder]).runs
    found, notes = exhibits([("captioner", run, "caption")])
    assert len(notes) == 2
    assert [len(exhibit.attention) for exhibit in found] == [1, 0, 0]
    shown = ["".join(piece for piece, _ in exhibit.captions[0].pieces) for exhibit in found]
    assert {len(text) for text in (*shown, *(exhibit.references[0] for exhibit in found))} == {LONGEST}
