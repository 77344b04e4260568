"""The command line as a user types it, brought into the form that Hydra reads.

Hydra's grammar gives a meaning to many characters that occur in names of files, and knows no letters beyond ASCII. Its
options have to stand before the overrides.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from lockdec.config.schema import config_folder
from lockdec.errors import ConfigError

SWITCHES = (
    *("-m", "--multirun", "-h", "--help", "--hydra-help", "--version", "--resolve", "-r", "--run", "-sc"),
    "--shell-completion",
)
WITH_VALUE = (
    *("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir"),
    "--experimental-rerun",
)
INFO, TOPICS = ("-i", "--info"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
SWEEP = ("-m", "--multirun")
# The value of a key with one of these last names is a text, whatever Hydra would make of it.
TEXTS = ("path", "outputs", "dir", "cache", "images", "name", "sweep_name", "project", "entity", "revision", "subset")
_KEY = re.compile(r"[+~]{0,2}[\w./@:$-]+")
_ITEMS = re.compile(r"""\[([^\[\]{}'"]*)\]""")  # a list without lists, dicts or quotes in it
_OWN_SYNTAX = re.compile(r"""[\[{'"]|\w+\(""")  # how a list, a dict, a quoted text or a function begins


def arranged(words: Sequence[str]) -> list[str]:
    """The words of a command line for Hydra: options first, and texts in quotes where its grammar needs that.

    Raises:
        ConfigError: a word that Hydra would misread or refuse with its grammar; says what would be right.
    """
    options: list[str] = []
    overrides: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"{word!r} on the command line is not UTF-8; rename the file, or set the locale"
            ) from None
        name = word.partition("=")[0]
        if left and (word in WITH_VALUE or (word in INFO and left[0] in TOPICS)):
            options += [word, left.pop(0)]
        elif word in SWITCHES or word in INFO or (name.startswith("--") and name in WITH_VALUE):
            options.append(word)
        elif word.startswith("-"):
            _refuse_option(word)
        else:
            overrides.append(word)
    _refuse_spaces(overrides)
    sweeping = any(option in SWEEP for option in options)
    return options + [_quoted(word, sweeping, overrides) for word in overrides]


def _refuse_option(word: str) -> None:
    bare = word.lstrip("-").replace("-", "_")
    if "=" in word:
        raise ConfigError(f"{word}: write it without dashes: {shlex.quote(bare)}")
    raise ConfigError(f"{word}: no such option (there are: {', '.join(SWITCHES[:4])}, ...); a choice is written "
                      f"{bare or 'key'}=VALUE")  # fmt: skip


def _refuse_spaces(words: Sequence[str]) -> None:
    """Raise ConfigError for `key = value`, `key =value`, `key= value` and `key value`."""
    for place, word in enumerate(words):
        key, equal, value = word.partition("=")
        after = words[place + 1] if place + 1 < len(words) else ""
        if word.startswith("~") and not equal:
            continue  # removes a key
        if not equal or not key:
            value = after.lstrip("=") or (words[place + 2] if after == "=" and place + 2 < len(words) else "VALUE")
            value = "VALUE" if "=" in value else value  # the next override
            raise ConfigError(f"{word!r}: an override is key=value without spaces, such as {key or 'key'}={value}")
        if not value and after and "=" not in after:
            raise ConfigError(f"{word!r} and {after!r}: write {key}={after} without a space")
        if key != key.strip() or not _KEY.fullmatch(key):
            raise ConfigError(f"{word!r}: {key!r} is not a key; an override is key=value without spaces")


def _quoted(word: str, sweeping: bool, words: Sequence[str]) -> str:
    """The override with its value in quotes, where it is a text that Hydra would take for something else."""
    key, equal, value = word.partition("=")
    if not equal or not value:
        return word
    is_text = key.rpartition(".")[2].lstrip("+") in TEXTS
    if is_text:
        value = os.path.expanduser(value)  # a shell leaves the ~ behind a = alone
    word = f"{key}={value}"
    quoted = f"{key}={QuotedString(value, Quote.single).with_quotes()}"
    parsed = _parsed(word)
    if parsed is None and "," in value and sweeping:
        each = ",".join(QuotedString(one.strip(), Quote.single).with_quotes() for one in value.split(","))
        raise ConfigError(f"{word}: Hydra cannot read this; quote each value: {_typed(f'{key}={each}')}")
    if parsed is None and (items := _ITEMS.fullmatch(value)):
        each = ",".join(
            one if re.fullmatch(r"[\w.+-]+", one) else QuotedString(one, Quote.single).with_quotes()
            for one in map(str.strip, items[1].split(","))
        )
        raise ConfigError(f"{word}: Hydra cannot read this; quote each text: {_typed(f'{key}=[{each}]')}")
    if parsed is None:
        if is_text or not _OWN_SYNTAX.match(value):
            return quoted
        raise ConfigError(f"{word}: Hydra cannot read this; for a text, quote it: {_typed(quoted)}")
    if parsed.is_sweep_override() and not sweeping:
        if is_text and Path(value).exists():
            return quoted
        raise ConfigError(f"{word}: several values are a sweep: python -m lockdec.run -m {shlex.join(words)}; "
                          f"for one text, quote it: {_typed(quoted)}")  # fmt: skip
    if parsed.is_sweep_override():
        return word
    if _is_group(key):  # whose options have names, though a name may be a number
        return quoted if isinstance(parsed.value(), int | float) else word
    is_changed = value != value.strip() or not isinstance(parsed.value(), str | None)
    return quoted if is_text and is_changed else word


def _is_group(key: str) -> bool:
    return "." not in key and (config_folder() / key.lstrip("+~").partition("@")[0]).is_dir()


def _typed(word: str) -> str:
    """The word as one types it in a shell."""
    return shlex.quote(word) if set(word) & set('"$`\\!') else f'"{word}"'


def _parsed(word: str) -> Override | None:
    """The override as Hydra reads it; None where its grammar refuses it."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None
