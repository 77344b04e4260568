"""What lockdec raises when the user can mend it: one plain line that names the key or file and what is allowed."""

from __future__ import annotations


class LockdecError(Exception):
    """Something the user can mend. Its text is one line; the command line prints it without a traceback."""


class ConfigError(LockdecError):
    """A config key is unknown, has a wrong value, or contradicts another. The text starts with `key=value`."""


class PrunedError(LockdecError):
    """A cell of a search was ended early, since others were better. The text names the metric and the step."""


class DataError(LockdecError):
    """An input file or row cannot be used. The text names the file and the row."""


class StoreError(LockdecError):
    """An artifact or folder cannot be read or written. The text names the path."""


def visible(text: str) -> str:
    """The text with every character replaced that steers a terminal or turns the direction of what follows."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
