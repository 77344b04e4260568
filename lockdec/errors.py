"""Errors that the user can fix: one plain line that names the key or file and says what is allowed."""

from __future__ import annotations

_LONGEST, _END = 2_000, 600  # characters of an error that are printed, and those of them at its end


class LockdecError(Exception):
    """An error that the user can fix. Its text is one line, which the command line prints without a traceback."""


class ConfigError(LockdecError):
    """A config key is unknown, has a wrong value, or contradicts another. The text starts with `key=value`."""


class PrunedError(LockdecError):
    """A cell of a search was pruned because others were better. The text names the metric and the step."""


class DataError(LockdecError):
    """An input file or row cannot be used. The text names the file and the row."""


class StoreError(LockdecError):
    """An artifact or folder cannot be read or written. The text names the path."""


def said(error: LockdecError | OSError) -> str:
    """What a command says of an error: one line without control characters. Of the system's errors, file and reason."""
    text = str(error)
    if isinstance(error, OSError):
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror or text
    return shortened(visible(" ".join(text.split())))


def shortened(line: str) -> str:
    """The line without its middle, if it is long: an error may quote a value, and what is right stands at its end."""
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - _END]} ... {line[-_END:]}"


def visible(text: str) -> str:
    """The text with every character replaced that controls a terminal or reverses the direction of the text."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def visible_lines(text: str) -> str:
    """As `visible`, line by line."""
    return "\n".join(map(visible, text.splitlines()))
