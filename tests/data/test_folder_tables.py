"""Tables of captions: how they may be written, and what is said of each row that cannot be used."""

from __future__ import annotations

import csv
import re
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockdec.data.folder import Folder
from lockdec.errors import DataError
from tests.data.user_files import (
    SPLIT,
    TEXTS,
    write_csv,
    write_lines,
    write_pictures,
    write_texts,
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"input,caption\na,gr\xfcn\n", r"captions.csv line 2: not UTF-8 \(byte 18\); save the file as UTF-8"),
        (b"picture,caption\na,b\n", r"captions.csv line 1: no column input \(there are: picture, caption\)"),
        (b"a,b\nc,d\n", "no column input and no column caption"),
        (b"input,input,caption\na,b,c\n", "two columns input"),
        (b"", "captions.csv: empty; its first line names the columns: input,caption"),
        (b"input,caption\n", "no usable row"),
        (b'input,caption\na,b\nc,"d\n', r"captions.csv line 3: not CSV \(unexpected end of data\)"),
        (b"input,caption\na,b\nc,d\n", "2 usable inputs"),
        (b"input,caption,split\na,b,train\nc,d,train\ne,f,val\n", "no usable row has split test"),
    ],
)
def test_a_table_that_cannot_be_read_is_named_whatever_becomes_of_bad_rows(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "captions.csv").write_bytes(content)
    for on_bad in ("error", "skip"):
        with pytest.raises(DataError, match=message):
            Folder(str(tmp_path), on_bad=on_bad)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("b", " ", ""), r"line 5: an empty caption for 'b'; every input needs at least one"),
        (("", "x", "train"), "line 5: an empty input"),
        (("b", "x" * 100_001, "train"), "line 5: a text of 100,001 characters; at most 100,000 are read"),
        (("b", "x", "dev"), "line 5: split 'dev' is not one of: train, val, test"),
        (("b", "x"), "line 5: 2 fields, but the header has 3; a caption with a comma in it stands in double quotes"),
        (("a", "x", "val"), r"line 5: 'a' is in split val, but in train in line 2"),
    ],
)
def test_a_bad_row_is_named_or_left_out(row: tuple[str, ...], message: str, tmp_path: Path) -> None:
    write_texts(tmp_path, *SPLIT, row, header=("input", "caption", "split"))
    with pytest.raises(DataError, match=rf"{message}.*data.on_bad=skip leaves such rows out"):
        Folder(str(tmp_path))
    data = Folder(str(tmp_path), on_bad="skip")
    assert (len(data), len(data.skipped)) == (3, 1)
    assert message.split("line 5: ")[1].split(".*")[0] in data.skipped[0]


def test_an_id_that_stands_twice_is_named(tmp_path: Path) -> None:
    rows = [("one", "a", "x"), ("two", "b", "y"), ("one", "c", "z"), ("three", "d", "w")]
    write_texts(tmp_path, *rows, header=("id", "input", "caption"))
    with pytest.raises(DataError, match=r"line 4: id 'one' occurs twice, first in line 2"):
        Folder(str(tmp_path))
    assert Folder(str(tmp_path), on_bad="skip").ids == ("one", "two", "three")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 4: not JSON"),
        ("[" * 5_000, "line 4: not JSON"),
        ("[1]", "line 4: not an object"),
        ('{"caption": "x"}', r"line 4: no input \(there are: caption\)"),
        ('{"input": "d"}', "line 4: either caption or captions is needed"),
        ('{"input": "d", "captions": "x"}', "line 4: captions is not a list of texts"),
        ('{"input": 4, "caption": "x"}', "line 4: input is not a text"),
        ('{"input": "d", "captions": []}', "line 4: an empty caption"),
    ],
)
def test_a_bad_line_of_json_is_named_or_left_out(line: str, message: str, tmp_path: Path) -> None:
    table = write_lines(tmp_path, *({"input": name, "caption": name} for name in "abc"))
    table.write_text(table.read_text() + line + "\n")
    with pytest.raises(DataError, match=message):
        Folder(str(tmp_path))
    assert len(Folder(str(tmp_path), on_bad="skip").skipped) == 1


LONE = "half \ud83d of it"


@pytest.mark.parametrize(
    "record",
    [
        {"input": "d", "caption": LONE},
        {"input": "d", "captions": ["x", LONE]},
        {"input": LONE, "caption": "x"},
        {"input": "d", "caption": "x", "id": LONE},
        {"input": "d", "caption": "x", "split": LONE},
        {"input": "d", "caption": "x", "id": "\udcff"},
    ],
)
def test_a_text_that_utf_8_cannot_hold_makes_a_row_bad(record: dict[str, object], tmp_path: Path) -> None:
    """JSON can escape half of a character; no file, tokenizer or terminal takes it."""
    write_lines(tmp_path, *({"input": name, "caption": name} for name in "abc"), record)
    with pytest.raises(DataError, match=r"line 4: '.*' cannot be written in UTF-8: .*surrogate \(.ud") as error:
        Folder(str(tmp_path), modality="text")
    assert str(error.value).isascii()
    data = Folder(str(tmp_path), modality="text", on_bad="skip")
    assert (len(data), len(data.skipped)) == (3, 1)
    assert data.skipped[0].isascii()


def test_a_name_of_a_value_that_utf_8_cannot_hold_is_told_too(tmp_path: Path) -> None:
    write_lines(tmp_path, *({"input": name, "caption": name} for name in "abc"), {LONE: "d"})
    (problem,) = Folder(str(tmp_path), on_bad="skip").skipped
    assert problem.isascii()


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(*[st.text(st.characters(), max_size=6)] * 3), max_size=12))
def test_whatever_texts_json_holds_each_row_is_used_or_told(rows: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        records = [{"input": entry, "caption": caption, "id": name} for entry, caption, name in rows]
        good = [{"input": f"good {number}", "caption": "x"} for number in range(4)]
        write_lines(Path(place), *good, *records)
        data = Folder(place, modality="text", on_bad="skip")
        for text in (*data.ids, *data.entries, *(text for several in data.captions for text in several)):
            assert unicodedata.is_normalized("NFC", text.encode().decode())
        inputs = {unicodedata.normalize("NFC", entry.strip()) for entry, _, _ in rows} | {r["input"] for r in good}
        assert set(data.entries) <= inputs
        assert len(data.skipped) + sum(map(len, data.captions)) <= len(rows) + len(good)
        assert len(data.skipped) + len(rows) + len(good) >= len(data)


def test_all_bad_rows_are_told_together(tmp_path: Path) -> None:
    """Of every sort at once: what the table gets wrong, and files that cannot be read."""
    rows = write_pictures(tmp_path, 4)
    broken = [(f"gone{number}.png", "x") for number in range(8)]
    write_csv(tmp_path, [*rows[:2], ("", "x"), *broken, rows[2], ("too", "many", "fields"), (rows[3][0], " "), rows[3]])
    with pytest.raises(DataError) as error:
        Folder(str(tmp_path))
    message = str(error.value)
    assert f"{tmp_path / 'captions.csv'}: 11 rows cannot be used (data.on_bad=skip leaves such rows out): " in message
    assert re.findall(r"line (\d+): ", message) == [str(line) for line in (*range(4, 13), 14)]
    assert "out): line 4: an empty input; name one; line 5: 'gone0.png': no such file" in message
    assert message.endswith("; and 1 more")
    assert "\n" not in message
    assert len(Folder(str(tmp_path), on_bad="skip").skipped) == 11


def test_where_too_few_rows_are_left_it_is_told_why(tmp_path: Path) -> None:
    write_texts(tmp_path, ("a", "x"), ("b", ""), ("c", "z"))
    with pytest.raises(DataError, match=r"csv: 2 usable inputs; .* is needed; left out: line 3: an empty caption"):
        Folder(str(tmp_path), on_bad="skip")
    write_texts(tmp_path, ("a",), ("b",))
    with pytest.raises(DataError, match=r"csv: 2 rows cannot be used"):
        Folder(str(tmp_path))
    with pytest.raises(DataError, match=r"csv: no usable row in it; left out: line 2: 1 fields"):
        Folder(str(tmp_path), on_bad="skip")


def test_a_cell_of_any_size_is_one_row(tmp_path: Path) -> None:
    """The csv module of Python ends at a field of 131,072 characters."""
    limit = csv.field_size_limit()
    write_texts(tmp_path, *TEXTS, ("b", "x" * 200_000))
    data = Folder(str(tmp_path), on_bad="skip")
    assert (len(data), len(data.skipped)) == (20, 1)
    assert "line 22: a text of 200,000 characters" in data.skipped[0]
    assert csv.field_size_limit() == limit


def test_a_wrong_quote_is_one_row_unless_it_takes_in_the_rest(tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    table.write_text('input,caption\na,x\n"b"y,"z"\nc,z\nd,w\n')
    data = Folder(str(tmp_path), on_bad="skip")
    assert data.entries == ("a", "c", "d")
    assert "line 3: not CSV" in data.skipped[0]


@pytest.mark.parametrize(
    "table",
    [
        "\ufeffinput;caption;split\r\na;x, y;train\r\nb;z;val\r\nc;w;test\r\n",
        "\ufeff\ufeffinput\tcaption\tsplit\na\tx, y\ttrain\nb\tz\tval\nc\tw\ttest\n",
        '"input";"caption";"split"\n"a";"x, y";"train"\n"b";"z";"val"\n"c";"w";"test"\n',
        'Input , CAPTION,Split\ra,"x, y",train\rb,z,val\rc,w,test\r',
        'input,caption,split,,\na,"x, y",train,,\n,,,,\nb,z,val,,\nc,w,test,,\n\n',
        'input,caption,split\na,"x, y",train,,\nb,z,val,\n  \nc,w,test\n',
    ],
)
def test_tables_are_read_as_spreadsheets_write_them(table: str, tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_bytes(table.encode())
    data = Folder(str(tmp_path))
    assert data.entries == ("a", "b", "c")
    assert data.captions == (("x, y",), ("z",), ("w",))
    assert dict(data.splits) == {"train": (0,), "val": (1,), "test": (2,)}


def test_only_columns_of_captions_are_captions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = ("input", "caption", "caption_2", "caption 3", "captions", "caption_number", "caption_lang", "author")
    rows = [(name, "one", "two", "three", "four", "0", "en", "me") for name in "abc"]
    data = Folder(str(write_texts(tmp_path, *rows, header=header)))
    assert data.captions[0] == ("one", "two", "three", "four")
    shown = " ".join(capsys.readouterr().out.split())
    assert "captions are read from caption, caption_2, caption 3, captions, but not from caption_number, cap" in shown
    write_texts(tmp_path, *(("a", "x"),), header=("input", "caption_en"))
    with pytest.raises(DataError, match=r"line 1: no column caption \(there are: input, caption_en\)"):
        Folder(str(tmp_path))


def test_json_may_number_captions_and_leave_values_null(tmp_path: Path) -> None:
    write_lines(
        tmp_path,
        {"input": "a", "caption": "one", "caption_2": "two", "id": None, "split": None, "captions": None},
        {"input": "b", "captions": ["three"], "id": "", "split": ""},
        {"input": "c", "caption": "four"},
    )
    data = Folder(str(tmp_path))
    assert data.captions == (("one", "two"), ("three",), ("four",))
    (tmp_path / "captions.jsonl").write_text('{"input": "a", "input": "b", "caption": "x"}\n' * 2)
    with pytest.raises(DataError, match="line 1: not JSON \\('input' occurs twice\\)"):
        Folder(str(tmp_path))


def test_empty_ids_are_none(tmp_path: Path) -> None:
    rows = [("", "a", "x"), (" ", "b", "y"), ("", "c", "z"), ("own", "d", "w")]
    assert Folder(str(write_texts(tmp_path, *rows, header=("id", "input", "caption")))).ids == ("a", "b", "c", "own")


def test_an_id_that_another_input_has_as_its_name_is_told(tmp_path: Path) -> None:
    rows = [("b", "a", "x"), ("", "b", "y"), ("", "c", "z"), ("", "d", "w"), (".", "e", "v")]
    write_texts(tmp_path, *rows, header=("id", "input", "caption"))
    with pytest.raises(DataError, match=r"line 3: id 'b' occurs twice, first in line 2; make ids unique"):
        Folder(str(tmp_path))
    assert Folder(str(tmp_path), on_bad="skip").ids == ("b", "c", "d", "%2E")


def test_texts_that_name_files_have_to_be_called_texts(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("a file")
    write_texts(tmp_path, ("hello", "x"), ("node.js", "y"), ("b", "z"))
    with pytest.raises(
        DataError, match=r"line 4: 'b' is a file, but 'hello' in line 2 is not; say data.modality=image,"
    ):
        Folder(str(tmp_path))
    assert Folder(str(tmp_path), modality="text").inputs(range(3)) == ["hello", "node.js", "b"]
    (tmp_path / "b").unlink()
    assert Folder(str(tmp_path)).modality == "text"


def test_a_table_in_utf_16_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_bytes("input,caption\na,b\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"captions.csv: UTF-16 and not UTF-8; save the file as UTF-8"):
        Folder(str(tmp_path))
