"""Caption sets from rows: how rows become inputs, how bad rows are told, and how a limit and a split are drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockdec.data.listed import BadRows, Drawn, ListedCaptions, OnBad, Row, usable_id
from lockdec.data.sources import Texts
from lockdec.errors import ConfigError, DataError


def rows(count: int, split: str | None = None, start: int = 0) -> list[Row]:
    return [Row(f"line {row + 2}", f"text {row}", (f"caption {row}",), split) for row in range(start, start + count)]


def listed(rows: list[Row], on_bad: OnBad = "error", limit: int | None = None, seed: int = 0) -> ListedCaptions:
    return ListedCaptions(rows, Texts(), BadRows(on_bad, "captions.csv"), drawn=Drawn(seed=seed), limit=limit)


def test_rows_of_one_input_are_its_references_each_once() -> None:
    again = [Row("line 99", "text 1", ("caption 1", "another"))]
    data = listed(rows(10) + again)
    assert len(data.ids) == 10
    assert data.captions[list(data.ids).index("text 1")] == ("caption 1", "another")


def test_a_given_split_is_kept_and_a_drawn_one_covers_every_input_once() -> None:
    given_split = listed([*rows(5, "train"), *rows(2, "val", 5), *rows(3, "test", 7)])
    assert [len(given_split.splits[name]) for name in ("train", "val", "test")] == [5, 2, 3]
    drawn = listed(rows(40))
    members = [row for split in drawn.splits.values() for row in split]
    assert sorted(members) == list(range(40))
    assert [len(drawn.splits[name]) for name in ("train", "val", "test")] == [32, 4, 4]


def test_what_a_given_split_holds_out_is_new() -> None:
    given = [*rows(5, "train"), *rows(3, "val", 5), *rows(3, "test", 8)]
    copies = [
        Row("line 20", "TEXT 1", ("caption 1",), "val"),
        Row("line 21", "Text 6", ("caption 6",), "test"),
        Row("line 22", "Text 2", ("caption 2",), "train"),
    ]
    message = r"line 20: the same input as in line 3, but in split val and not train; what is held out has to be new"
    with pytest.raises(DataError, match=message):
        listed(given + copies)
    left = listed(given + copies, on_bad="skip")
    assert [line.split(":")[0] for line in left.skipped] == ["captions.csv line 20", "captions.csv line 21"]
    assert [len(left.splits[name]) for name in ("train", "val", "test")] == [6, 3, 3]


def test_a_text_in_another_case_is_never_in_another_split() -> None:
    twice = [*rows(20), *(Row(f"line {row + 40}", f"TEXT {row}", (f"caption {row}",)) for row in range(20))]
    for seed in range(3):
        data = listed(twice, seed=seed)
        split = {data.entries[row]: name for name, members in data.splits.items() for row in members}
        assert all(split[name] == split[name.upper()] for name in split if name.islower())


def test_the_seed_draws_the_split() -> None:
    first, same, other = (listed(rows(40), seed=seed).splits["test"] for seed in (0, 0, 1))
    assert list(first) == list(same)
    assert set(first) != set(other)


def test_a_limit_takes_its_share_of_every_split() -> None:
    data = listed([*rows(60, "train"), *rows(20, "val", 60), *rows(20, "test", 80)], limit=50)
    assert Counter({name: len(members) for name, members in data.splits.items()}) == {
        "train": 30,
        "val": 10,
        "test": 10,
    }
    with pytest.raises(ConfigError, match=r"data\.limit=7: at least 8 inputs"):
        listed(rows(20), limit=7)


def test_bad_rows_are_an_error_or_left_out_in_the_order_of_the_file() -> None:
    bad = [Row("line 10", "text a", (" ",)), Row("line 9", "text b", ("b",), "nowhere")]
    with pytest.raises(DataError, match=r"^captions\.csv: 2 rows cannot be used .*: line 9: .*; line 10: .*"):
        listed(rows(10) + bad)
    left = listed(rows(10) + bad, on_bad="skip")
    assert len(left.ids) == 10
    assert [line.split(":")[0] for line in left.skipped] == ["captions.csv line 9", "captions.csv line 10"]


def test_of_many_bad_rows_ten_are_listed() -> None:
    bad = [Row(f"line {row}", f"empty {row}", ("",)) for row in range(100, 112)]
    with pytest.raises(DataError) as error:
        listed(rows(10) + bad)
    assert str(error.value).count("an empty caption") == 10
    assert str(error.value).endswith("; and 2 more")


@given(st.text(min_size=1), st.text(min_size=1))
def test_ids_are_file_names_and_stay_different(one: str, other: str) -> None:
    try:
        names = usable_id(one), usable_id(other)
    except UnicodeEncodeError:  # a single surrogate: such a row is refused before
        return
    assert (names[0] == names[1]) == (one == other)
    for name in names:
        assert Path(name).name == name
        assert len(name.encode()) <= 200
