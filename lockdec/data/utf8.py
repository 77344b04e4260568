"""Text files of users: how they are read, where their lines end, and what is said of those that are not UTF-8."""

from __future__ import annotations

import codecs
import io
from pathlib import Path

from lockdec.errors import DataError


def read_utf8(path: Path, key: str = "") -> str:
    """The text of a user's file, without a byte order mark.

    Args:
        key: of the file in the config, which errors name: `data.path=`.

    Raises:
        DataError: it cannot be read or is not UTF-8; the error names the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{key}{path}: cannot be read ({error.strerror})") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError(f"{key}{path}: UTF-16 and not UTF-8; save the file as UTF-8") from error
        place = error.start + len(codecs.BOM_UTF8) * content.startswith(codecs.BOM_UTF8)
        line = len(lines_of_text(content[:place].decode("utf-8-sig")))
        raise DataError(f"{key}{path} line {line}: not UTF-8 (byte {place}); save the file as UTF-8") from error


def lines_of_text(text: str) -> list[str]:
    """The lines, which end at \\n, \\r\\n or \\r; at no other character, unlike those of `str.splitlines`."""
    return io.StringIO(text, newline=None).read().split("\n")
