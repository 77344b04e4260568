"""Text files of users."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lockdec.data.text import TextFile
from lockdec.data.translation import translation_pairs
from lockdec.data.utf8 import lines_of_text, read_utf8
from lockdec.errors import DataError

SEPARATORS = "one\u0085two\u2028three\fno\vnew\x1cline"


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes("\ufeffäh\r\n".encode())
    assert read_utf8(file) == "äh\r\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot be read \(No such file or directory\)"),
        ("one\ntwo".encode("utf-16"), "UTF-16 and not UTF-8; save the file as UTF-8"),
        (b"\xef\xbb\xbfone\rtwo\r\ncaf\xe9", r"line 3: not UTF-8 \(byte 15\); save the file as UTF-8"),
        (b"one\ncaf\xe9\n", r"line 2: not UTF-8 \(byte 7\); save the file as UTF-8"),
    ],
)
def test_an_error_names_key_file_and_line(content: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=rf"^data\.path=.*text\.txt:? {message}$"):
        read_utf8(file, "data.path=")


def test_lines_end_as_in_files_of_all_systems_and_at_no_other_character() -> None:
    assert lines_of_text(f"{SEPARATORS}\r\ntwo\n\rthree") == [SEPARATORS, "two", "", "three"]


def test_every_file_of_lines_is_split_alike(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(f"{SEPARATORS}\r\nlast\n", encoding="utf-8", newline="")
    assert TextFile(str(file)).lines() == [SEPARATORS, "last"]
    pairs = [f"{SEPARATORS} {number}\tsatz {number}" for number in range(60)]
    file.write_text("\r\n".join(pairs), encoding="utf-8", newline="")
    data = translation_pairs(str(file), val=5, test=5)
    assert len(data.ids) == len(pairs)


def test_a_file_that_is_split_in_another_way_than_before_is_another_file(tmp_path: Path) -> None:
    """Keys of all other files stay: their fingerprint is that of their text."""
    file = tmp_path / "text.txt"
    for text, changed in (("one\n\ntwo", False), ("one\r\ntwo\r\n", False), ("one\x0ctwo\n", True)):
        file.write_bytes(text.encode())
        assert (TextFile(str(file)).fingerprint != hashlib.sha256(text.encode()).hexdigest()) == changed
