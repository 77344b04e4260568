"""A user's folder: what is read, how it is split, and what is said of each thing that cannot be used."""

from __future__ import annotations

import csv
import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lockdec.data.folder import Folder
from lockdec.data.images import open_image
from lockdec.data.listed import usable_id
from lockdec.data.text import pretraining_text
from lockdec.errors import ConfigError, DataError
from tests.data.user_files import write_arrays, write_csv, write_lines, write_pictures

TEXTS = [(f"text {number}", f"caption {number}") for number in range(20)]
SPLIT = [("a", "x", "train"), ("b", "y", "val"), ("c", "z", "test")]


def texts(folder: Path, *rows: tuple[str, ...], header: tuple[str, ...] = ("input", "caption")) -> Path:
    write_csv(folder, rows, header)
    return folder


@pytest.mark.parametrize("reading", ["csv", "jsonl"])
def test_both_tables_say_the_same(reading: str, tmp_path: Path) -> None:
    if reading == "csv":
        rows = [("a", "A  Red hat", "a cap", "train"), ("b", "two, three", "", "val"), ("c", "z", "", "test")]
        write_csv(tmp_path, rows, ("input", "caption", "caption_2", "split"))
    else:
        write_lines(
            tmp_path,
            {"input": "a", "captions": ["A  Red hat", "a cap"], "split": "train"},
            {"input": "b", "caption": "two, three", "split": "val"},
            {"input": "c", "caption": "z", "split": "test"},
        )
    data = Folder(str(tmp_path))
    assert data.captions == (("a red hat", "a cap"), ("two, three",), ("z",))
    assert dict(data.splits) == {"train": (0,), "val": (1,), "test": (2,)}
    assert (data.inputs([1, 0]), data.modality) == (["b", "a"], "text")


def test_several_rows_of_an_input_are_its_references(tmp_path: Path) -> None:
    rows = [("a", "one"), ("b", "two"), ("a", "three"), ("a", "ONE"), ("c", "z")]
    data = Folder(str(texts(tmp_path, *rows)))
    assert dict(zip(data.entries, data.captions, strict=True)) == {"a": ("one", "three"), "b": ("two",), "c": ("z",)}


def test_columns_of_one_name_are_references_too(tmp_path: Path) -> None:
    rows = [("a", "one", "two"), ("b", "three", "four"), ("c", "five", "six")]
    assert Folder(str(texts(tmp_path, *rows, header=("Input", "caption", "caption")))).captions[1] == ("three", "four")


def test_a_byte_order_mark_and_line_breaks_in_a_field_are_read(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_bytes(b'\xef\xbb\xbfinput,caption\r\na,"one\r\nline"\r\n\r\nb,two\r\nc,three\r\n')
    assert Folder(str(tmp_path)).captions == (("one line",), ("two",), ("three",))


def test_a_drawn_split_has_its_shares_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    texts(tmp_path, *TEXTS)
    first, again, other = (Folder(str(tmp_path), split_seed=seed, val_share=0.2) for seed in (0, 0, 1))
    assert {name: len(rows) for name, rows in first.splits.items()} == {"train": 14, "val": 4, "test": 2}
    assert first.fingerprint == again.fingerprint
    assert first.splits != other.splits


def test_copies_of_an_input_under_other_names_are_never_in_two_splits(tmp_path: Path) -> None:
    rows = write_pictures(tmp_path, 8)
    copies = []
    for name, caption in rows:
        copy = name.replace(".png", "-copy.png")
        (tmp_path / copy).write_bytes((tmp_path / name).read_bytes())
        copies.append((copy, caption))
    write_csv(tmp_path, rows + copies)
    for seed in range(5):
        data = Folder(str(tmp_path), split_seed=seed, val_share=0.25, test_share=0.25)
        split = {data.entries[row]: name for name, members in data.splits.items() for row in members}
        assert all(split[name] == split[name.replace(".png", "-copy.png")] for name, _ in rows)


def test_no_held_out_caption_is_in_the_pretraining_text(tmp_path: Path) -> None:
    rows = [(f"text {number}", f"caption {number % 7}") for number in range(40)]
    data = Folder(str(texts(tmp_path, *rows)))
    held_out = {*data.references("val"), *data.references("test")}
    text = pretraining_text(data)
    assert set(text) == set(data.references("train")) - held_out
    assert set(data.references("train")) & held_out  # the same words stand in two splits, so leaving out did something


def test_a_limit_takes_some_of_each_split(tmp_path: Path) -> None:
    rows = [
        (f"text {number}", "x", "test" if number < 20 else "val" if number < 24 else "train") for number in range(200)
    ]
    data = Folder(str(texts(tmp_path, *rows, header=("input", "caption", "split"))), limit=40)
    assert {name: len(members) for name, members in data.splits.items()} == {"train": 35, "val": 4, "test": 4}
    with pytest.raises(ConfigError, match=r"data\.limit=3: at least 8"):
        Folder(str(tmp_path), limit=3)


def test_pictures_are_read_when_asked_for(tmp_path: Path) -> None:
    rows = write_pictures(tmp_path, 6)
    write_csv(tmp_path, rows)
    data = Folder(str(tmp_path))
    assert data.modality == "image"
    (picture,) = data.inputs([2])
    assert isinstance(picture, Image.Image)
    assert np.array_equal(np.asarray(picture), np.asarray(Image.open(tmp_path / rows[2][0]).convert("RGB")))
    assert data.ids[2] == rows[2][0].replace("/", "%2F")
    before = data.fingerprint
    Image.new("RGB", (9, 9)).save(tmp_path / rows[2][0])
    assert Folder(str(tmp_path)).fingerprint != before


def test_arrays_are_states_by_channels(tmp_path: Path) -> None:
    rows = write_arrays(tmp_path, 6)
    write_csv(tmp_path, rows)
    data = Folder(str(tmp_path))
    shapes = [array.shape for array in data.inputs(range(6)) if isinstance(array, np.ndarray)]
    assert (data.modality, shapes) == ("array", [(1, 6), (2, 6), (3, 6), (4, 6), (1, 6), (2, 6)])


def test_samples_may_be_as_many_as_they_are(tmp_path: Path) -> None:
    for count in (3, 5, 9):
        np.save(tmp_path / f"{count}.npy", np.arange(count))
    write_csv(tmp_path, [("3.npy", "a"), ("5.npy", "b"), ("9.npy", "c")])
    arrays = Folder(str(tmp_path)).inputs(range(3))
    assert [array.shape for array in arrays if isinstance(array, np.ndarray)] == [(3,), (5,), (9,)]


def test_ids_of_features_are_given_as_they_are(tmp_path: Path) -> None:
    data = Folder(str(texts(tmp_path, ("k1", "a"), ("k2", "b"), ("k3", "c"))), modality="array")
    assert (data.inputs([0, 2]), data.modality, data.ids) == (["k1", "k3"], "array", ("k1", "k2", "k3"))


def test_unchanged_files_are_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = write_pictures(tmp_path / "data", 6)
    write_csv(tmp_path / "data", rows)
    opened: list[str] = []
    real = open_image

    def noted(source: bytes, name: str) -> Image.Image:
        opened.append(name)
        return real(source, name)

    monkeypatch.setattr("lockdec.data.sources.open_image", noted)
    first = Folder(str(tmp_path / "data"), cache=str(tmp_path / "cache"))
    first.inputs(range(6))
    assert opened == [name for name, _ in rows]
    again = Folder(str(tmp_path / "data"), cache=str(tmp_path / "cache"))
    assert (len(opened), again.fingerprint) == (6, first.fingerprint)
    Image.new("RGB", (9, 9)).save(tmp_path / "data" / rows[3][0])
    assert Folder(str(tmp_path / "data"), cache=str(tmp_path / "cache")).fingerprint != first.fingerprint
    assert opened[6:] == [rows[3][0]]
    (cache,) = (tmp_path / "cache").iterdir()
    cache.write_text("{")
    assert Folder(str(tmp_path / "data"), cache=str(tmp_path / "cache")).ids == first.ids


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
    texts(tmp_path, *SPLIT, row, header=("input", "caption", "split"))
    with pytest.raises(DataError, match=rf"{message}.*data.on_bad=skip leaves such rows out"):
        Folder(str(tmp_path))
    data = Folder(str(tmp_path), on_bad="skip")
    assert (len(data), len(data.skipped)) == (3, 1)
    assert message.split("line 5: ")[1].split(".*")[0] in data.skipped[0]


def test_an_id_that_stands_twice_is_named(tmp_path: Path) -> None:
    rows = [("one", "a", "x"), ("two", "b", "y"), ("one", "c", "z"), ("three", "d", "w")]
    texts(tmp_path, *rows, header=("id", "input", "caption"))
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
    texts(tmp_path, ("a", "x"), ("b", ""), ("c", "z"))
    with pytest.raises(DataError, match=r"csv: 2 usable inputs; .* is needed; left out: line 3: an empty caption"):
        Folder(str(tmp_path), on_bad="skip")
    texts(tmp_path, ("a",), ("b",))
    with pytest.raises(DataError, match=r"csv: 2 rows cannot be used"):
        Folder(str(tmp_path))
    with pytest.raises(DataError, match=r"csv: no usable row in it; left out: line 2: 1 fields"):
        Folder(str(tmp_path), on_bad="skip")


def test_a_cell_of_any_size_is_one_row(tmp_path: Path) -> None:
    """The csv module of Python ends at a field of 131,072 characters."""
    limit = csv.field_size_limit()
    texts(tmp_path, *TEXTS, ("b", "x" * 200_000))
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
    data = Folder(str(texts(tmp_path, *rows, header=header)))
    assert data.captions[0] == ("one", "two", "three", "four")
    shown = " ".join(capsys.readouterr().out.split())
    assert "captions are read from caption, caption_2, caption 3, captions, but not from caption_number, cap" in shown
    texts(tmp_path, *(("a", "x"),), header=("input", "caption_en"))
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
    assert Folder(str(texts(tmp_path, *rows, header=("id", "input", "caption")))).ids == ("a", "b", "c", "own")


def test_an_id_that_another_input_has_as_its_name_is_told(tmp_path: Path) -> None:
    rows = [("b", "a", "x"), ("", "b", "y"), ("", "c", "z"), ("", "d", "w"), (".", "e", "v")]
    texts(tmp_path, *rows, header=("id", "input", "caption"))
    with pytest.raises(DataError, match=r"line 3: id 'b' occurs twice, first in line 2; make ids unique"):
        Folder(str(tmp_path))
    assert Folder(str(tmp_path), on_bad="skip").ids == ("b", "c", "d", "%2E")


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize("in_table", [str, decomposed])
@pytest.mark.parametrize("on_disk", [str, decomposed])
def test_a_name_is_found_in_any_unicode_form(
    in_table: Callable[[str], str], on_disk: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / on_disk("été")).mkdir()
    rows = []
    for number in range(4):
        Image.new("RGB", (4, 4 + number)).save(tmp_path / on_disk("été") / on_disk(f"ö{number}.png"))
        rows.append((in_table(f"été/ö{number}.png"), in_table(f"élan {number}")))
    write_csv(tmp_path, [*rows, ("été/ö0.png", "another")])
    data = Folder(str(tmp_path))
    assert data.ids == tuple(f"été%2Fö{number}.png" for number in range(4))
    assert data.captions[0] == ("élan 0", "another")
    assert [picture.height for picture in data.inputs(range(4)) if isinstance(picture, Image.Image)] == [4, 5, 6, 7]


def test_two_names_that_differ_only_in_their_form_are_told(tmp_path: Path) -> None:
    rows = write_pictures(tmp_path, 4)
    for form in (str, decomposed):
        Image.new("RGB", (4, 4)).save(tmp_path / form("é.png"))
    write_csv(tmp_path, [*rows, (decomposed("é.png"), "x")])
    with pytest.raises(DataError, match=r"line 6: .* differ only in the Unicode form of their names; rename one"):
        Folder(str(tmp_path))


def test_texts_and_captions_have_one_unicode_form(tmp_path: Path) -> None:
    rows = [("é", "café"), (decomposed("é"), decomposed("CAFÉ noir")), ("b", "x"), ("c", "y")]
    data = Folder(str(texts(tmp_path, *rows)))
    assert data.captions[0] == ("café", "café noir")
    assert data.inputs([0]) == ["é"]
    one = Folder(str(texts(tmp_path, *TEXTS, ("é", "ö"))))
    other = Folder(str(texts(tmp_path, *TEXTS, (decomposed("é"), decomposed("ö")))))
    assert one.fingerprint == other.fingerprint


def test_paths_of_windows_are_read_and_other_letter_case_is_told(tmp_path: Path) -> None:
    rows = write_pictures(tmp_path, 4)
    write_csv(tmp_path, [(name.replace("/", "\\"), caption) for name, caption in rows])
    data = Folder(str(tmp_path))
    assert data.ids == tuple(name.replace("/", "%2F") for name, _ in rows)
    write_csv(tmp_path, [*rows, (rows[0][0].upper(), "x")])
    with pytest.raises(DataError, match=rf"line 6: .*no such file in .* \(there is '{rows[0][0]}'\)"):
        Folder(str(tmp_path))


@pytest.mark.parametrize("ending", [".jfif", ".PNG", "", ".JPEG", ".x"])
def test_pictures_are_known_by_their_ending_or_content(ending: str, tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (4, 4 + number)).save(tmp_path / f"{number}{ending}", "PNG")
    write_csv(tmp_path, [(f"{number}{ending}", "x") for number in range(3)])
    data = Folder(str(tmp_path))
    assert data.modality == "image"


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("name", ["song.mid", "clip.mp4", "page.pdf", "photo.HEIC"])
def test_a_file_of_another_kind_is_refused_by_name(name: str, there: bool, tmp_path: Path) -> None:
    rows = [(f"{number}{name}", "x") for number in range(3)]
    for entry, _ in rows if there else []:
        (tmp_path / entry).write_bytes(b"RIFF....WAVE")
    write_csv(tmp_path, rows)
    ending = Path(name).suffix
    with pytest.raises(
        DataError, match=rf"line 2: '0{name}': files that end in {ending} are not read \(pictures are: PN"
    ):
        Folder(str(tmp_path))
    assert Folder(str(tmp_path), modality="text").inputs([0]) == [f"0{name}"]
    assert Folder(str(tmp_path), modality="array").modality == "array"


def write_sounds(folder: Path, endings: Sequence[str] = (".wav",) * 3) -> list[tuple[str, str]]:
    rows = []
    for number, ending in enumerate(endings):
        tone = 0.1 * np.sin(np.arange(4_410 * (number + 1)) * 0.05 * (number + 1))
        soundfile.write(folder / f"{number}{ending}", tone, 44_100)
        rows.append((f"{number}{ending}", "x"))
    return rows


def test_sounds_are_arrays_of_samples_at_the_rate_that_is_asked_for(tmp_path: Path) -> None:
    write_csv(tmp_path, write_sounds(tmp_path, [".wav", ".flac", ".OGG"]))
    data = Folder(str(tmp_path))
    assert data.modality == "array"
    assert [len(sound) for sound in data.inputs(range(3))] == [1_600, 3_200, 4_800]  # type: ignore[arg-type]
    twice = Folder(str(tmp_path), rate=32_000)
    assert len(twice.inputs([0])[0]) == 3_200  # type: ignore[arg-type]
    assert twice.fingerprint != data.fingerprint


def test_damaged_sounds_are_bad_rows(tmp_path: Path) -> None:
    rows = write_sounds(tmp_path)
    (tmp_path / "a.wav").write_bytes(b"RIFF....WAVE")
    (tmp_path / "b.mp3").write_text("<html>not found</html>")
    soundfile.write(tmp_path / "c.wav", np.zeros(0), 16_000)
    write_csv(tmp_path, [*rows, ("a.wav", "x"), ("b.mp3", "x"), ("c.wav", "x"), ("d.wav", "x")])
    with pytest.raises(
        DataError,
        match=r"line 5: a\.wav: not a sound that can be read.*line 6: b\.mp3: not a sound.*"
        r"line 7: c\.wav: a sound without samples.*line 8: 'd\.wav': no such file",
    ):
        Folder(str(tmp_path))
    assert len(Folder(str(tmp_path), on_bad="skip")) == 3


def test_ids_may_look_like_sounds(tmp_path: Path) -> None:
    write_csv(tmp_path, [(f"{number}.wav", "x") for number in range(3)])
    assert Folder(str(tmp_path), modality="array").inputs([0]) == ["0.wav"]


def test_a_file_of_another_kind_among_pictures_is_a_bad_row(tmp_path: Path) -> None:
    rows = write_pictures(tmp_path, 4)
    (tmp_path / "notes.txt").write_text("no picture")
    write_csv(tmp_path, [("notes.txt", "x"), *rows])
    with pytest.raises(DataError, match=r"line 2: notes.txt: not a picture of a kind that is read"):
        Folder(str(tmp_path))
    assert len(Folder(str(tmp_path), on_bad="skip")) == 4


def test_texts_that_name_files_have_to_be_called_texts(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("a file")
    texts(tmp_path, ("hello", "x"), ("node.js", "y"), ("b", "z"))
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


def test_a_file_too_large_for_a_picture_is_not_read(tmp_path: Path) -> None:
    rows = write_pictures(tmp_path, 4)
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(1 << 30)
    write_csv(tmp_path, [*rows, ("large.png", "x")])
    with pytest.raises(DataError, match=r"line 6: large.png: 1,024 MiB; files of at most 512 MiB are read"):
        Folder(str(tmp_path))


def missing(folder: Path) -> None:
    (folder / "pictures" / "bad.png").unlink()


def unreadable(folder: Path) -> None:
    (folder / "pictures" / "bad.png").write_bytes(b"no picture")


def truncated(folder: Path) -> None:
    path = folder / "pictures" / "bad.png"
    path.write_bytes(path.read_bytes()[:200])


def a_folder(folder: Path) -> None:
    missing(folder)
    (folder / "pictures" / "bad.png").mkdir()


def a_link_outside(folder: Path) -> None:
    missing(folder)
    (folder.parent / "secret.png").write_bytes((folder / "pictures" / "good.png").read_bytes())
    (folder / "pictures" / "bad.png").symlink_to(folder.parent / "secret.png")


def a_pipe(folder: Path) -> None:
    missing(folder)
    os.mkfifo(folder / "pictures" / "bad.png")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing, "'pictures/bad.png': no such file in"),
        (unreadable, "pictures/bad.png: not a picture of a kind that is read"),
        (truncated, "pictures/bad.png: a damaged picture"),
        (a_folder, "no such file in"),
        (a_link_outside, "'pictures/bad.png' leads outside"),
        (a_pipe, "no such file in"),
    ],
)
def test_a_bad_picture_is_named_or_left_out(spoil: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    rows = write_pictures(folder, 6)
    for name in ("good", "bad"):
        Image.effect_noise((64, 64), 50).save(folder / "pictures" / f"{name}.png")
    write_csv(folder, [*rows, ("pictures/bad.png", "bad"), ("pictures/good.png", "good")])
    spoil(folder)
    with pytest.raises(DataError, match=rf"captions.csv line 8: .*{message}"):
        Folder(str(folder))
    data = Folder(str(folder), on_bad="skip")
    assert (len(data), len(data.skipped)) == (7, 1)
    assert "pictures/bad.png" not in data.entries


@pytest.mark.parametrize(
    "entry", ["../secret.png", "/etc/hostname", "pictures/../../secret.png", "x\0.png", "a" * 5000]
)
def test_no_entry_leads_outside_the_folder(entry: str, tmp_path: Path) -> None:
    rows = write_pictures(tmp_path / "data", 4)
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    records = [{"input": name, "caption": caption} for name, caption in [*rows, (entry, "x")]]
    write_lines(tmp_path / "data", *records)
    with pytest.raises(DataError, match=r"captions.jsonl line 5: .*(leads outside|cannot name a file|no such file)"):
        Folder(str(tmp_path / "data"), modality="image")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 6)), r"9.npy: an array of shape \(2, 3, 6\); states by channels are needed"),
        (np.zeros(()), r"shape \(\)"),
        (np.zeros((0, 6)), r"shape \(0, 6\)"),
        (np.zeros((2, 5)), "5 channels, but 0.npy has 6"),
        (np.zeros(6), "an array of rank 1, but 0.npy has rank 2"),
        (np.array([[0, 1, 2, np.nan, 4, 5]]), r"nan at \[0, 3\]: every number has to be finite"),
        (np.array([[0, 1, 2, 3, 4, 1e39]]), r"1e.39 at \[0, 5\]"),
        (np.array([["a"] * 6]), "not one array of numbers"),
        (np.array([[None] * 6], dtype=object), "not a .npy file of numbers"),
    ],
)
def test_a_bad_array_is_named(array: Any, message: str, tmp_path: Path) -> None:
    rows = write_arrays(tmp_path, 4)
    np.save(tmp_path / "9.npy", array, allow_pickle=True)
    write_csv(tmp_path, [*rows, ("9.npy", "bad")])
    with pytest.raises(DataError, match=rf"captions.csv line 6: .*{message}"):
        Folder(str(tmp_path))
    assert len(Folder(str(tmp_path), on_bad="skip")) == 4


def test_a_folder_that_is_not_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path=.*nowhere: no such folder"):
        Folder(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"one of captions.csv and captions.jsonl is needed, but none is there"):
        Folder(str(tmp_path))
    write_lines(texts(tmp_path, *SPLIT), {"input": "a", "caption": "b"})
    with pytest.raises(DataError, match="but both of them are there"):
        Folder(str(tmp_path))


def test_impossible_shares_are_refused(tmp_path: Path) -> None:
    texts(tmp_path, *TEXTS)
    with pytest.raises(ConfigError, match=r"data\.val_share=0\.6 data\.test_share=0\.5"):
        Folder(str(tmp_path), val_share=0.6, test_share=0.5)


def test_ids_can_name_files_and_stay_different() -> None:
    names = ["a/b.png", "a%2Fb.png", "a\\b.png", "../x", "Äpfel.png", "x" * 300, "x" * 301, "a\0b"]
    usable = [usable_id(name) for name in names]
    assert len(set(usable)) == len(names)
    assert usable[4] == "Äpfel.png"
    assert not any(set("/\\\0") & set(name) for name in usable)
    assert all(len(name.encode()) <= 200 for name in usable)
    assert json.loads(json.dumps(usable)) == usable
