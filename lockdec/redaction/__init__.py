"""Keeps secrets out of everything that a run writes or prints.

Writers pass values through `redacted` while they are still containers, so that a key and its value are seen together,
and lines that already are text through `text`. A secret is recognised in three ways: by the name of its key, option,
header or query parameter (names, lines); by its format (formats); and by its value, if the value is in an environment
variable with such a name, or has been seen under such a key (`learn`). Secrets found by value are also found in base64,
in URLs and with escapes.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

from lockdec.redaction.formats import REDACTED, is_random, without_formats
from lockdec.redaction.lines import HEADERS, is_filled, without_named
from lockdec.redaction.names import WORDS, is_secret

__all__ = ["REDACTED", "is_secret", "known", "learn", "of_error", "redacted", "text"]

_SHORTEST = 8  # characters of a secret that is found anywhere in a text
_SHORTEST_WORD = 4  # characters of one that is found where it stands alone, if it has more than letters
_LONGEST_PARSED = 100_000  # characters of a string that is parsed
_ENCODED = re.compile(r"(?<![A-Za-z0-9+/_=-])eyJ[A-Za-z0-9+/_=-]{20,20000}+")  # JSON in base64
_ASSIGNMENT = re.compile(r"\s*(?P<key>[+~]{0,2}[^\s=:{}()\[\],]+(?: [^\s=:{}()\[\],]+){0,3})=(?!=)(?P<value>[\s\S]+)")
_ABOUT_KEY = re.compile(r"(?P<key>[\w.@/+~-]{1,200}+): (?P<reason>.+)", re.DOTALL)
_CREDENTIALS = re.compile(r"(?:Bearer|Basic|Digest|Negotiate)\s{1,3}([A-Za-z0-9._~+/=-]{8,}+)", re.IGNORECASE)
_NAMES = {"name", "key", "header", "k", "field", "option", "variable", "type"}  # of a secret, in an object that ...
_VALUES = {"value", "val", "v", "default", "content", "argument"}  # ... has its value beside it
_SHORT = {"key", "pwd", "pat", "code"}  # names that are those of secrets below another name alone

_learned: set[str] = set()


def learn(value: Any) -> None:
    """Remember the secrets in a value made of plain containers, so that `text` finds them in any later line.

    The command does so for its arguments and its config: an error may quote a value without the name of its key.
    """
    _learned.update(_found(value))


def redacted(value: Any) -> Any:
    """A value made of plain containers, without its secrets. A string `key=value` is read as an override."""
    return _redacted(value, known([*_found(value)]))


def text(line: str, secrets: Sequence[str] | None = None) -> str:
    """The text without its secrets.

    Args:
        secrets: what `known` returns, so that many texts can share one call; None calls it.
    """
    for secret in known() if secrets is None else secrets:
        if secret in line:
            line = _without(line, secret)
    if "eyJ" in line:
        line = _ENCODED.sub(_without_encoded, line)
    return without_named(without_formats(line))


def of_error(line: str) -> str:
    """The text of an error without its secrets.

    Many begin with the key that they are about. If that has the name of a secret, a dash takes the place of the colon,
    after which the reason would look like the secret, to this and to every later reader.
    """
    about = _ABOUT_KEY.fullmatch(line)
    return text(f"{about['key']} - {about['reason']}" if about and is_secret(about["key"]) else line)


def known(more: Sequence[str] = ()) -> list[str]:
    """The secrets that are known by value, in all forms they may be written in, the longest first: one may be part of
    another. They come from the environment, from `learn` and from `more`."""
    plain = {value for name, value in os.environ.items() if len(value) >= _SHORTEST and is_secret(name)}
    forms = {form for value in {*plain, *_learned, *more} for form in _forms(value)}
    return sorted(forms, key=len, reverse=True)


def _redacted(value: Any, secrets: Sequence[str], parent: str = "") -> Any:
    if isinstance(value, Mapping):
        hidden = _secret_keys(value, parent)
        return {
            text(str(name), secrets): REDACTED
            if name in hidden and is_filled(inner)
            else _redacted(inner, secrets, str(name))
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        secret = _places(value)
        return [REDACTED if place in secret else _redacted(inner, secrets) for place, inner in enumerate(value)]
    return _redacted_string(value, secrets) if isinstance(value, str) else value


def _redacted_string(value: str, secrets: Sequence[str]) -> str:
    if (inner := _parsed(value)) is not None:
        safe = _redacted(inner, secrets)
        return text(value, secrets) if safe == inner else json.dumps(safe, ensure_ascii=False)
    if found := _ASSIGNMENT.fullmatch(value):
        key, typed = found["key"], found["value"]
        if is_secret(key):
            return f"{key}={REDACTED}" if is_filled(typed) else value
        inner = _parsed_override(typed)
        if inner is not None and (safe := _redacted(inner, secrets)) != inner:
            return f"{text(key, secrets)}={_as_override(safe)}"
        without = text(typed, secrets)
        if inner is None and without != typed and any(mark in typed for mark in "{[("):
            return f"{text(key, secrets)}={REDACTED}"  # where it ends is not known
        return text(f"{key}={without}", secrets)
    return text(value, secrets)


def _found(value: Any, parent: str = "") -> Iterator[str]:
    """The secrets in plain containers, by the names of their keys, as strings."""
    if isinstance(value, Mapping):
        hidden = _secret_keys(value, parent)
        for name, inner in value.items():
            yield from _strings(inner) if name in hidden else _found(inner, str(name))
    elif isinstance(value, list | tuple):
        secret = _places(value)
        for place, inner in enumerate(value):
            yield from _strings(inner) if place in secret else _found(inner)
    elif isinstance(value, str):
        if (inner := _parsed(value)) is not None:
            yield from _found(inner)
        elif found := _ASSIGNMENT.fullmatch(value):
            if is_secret(found["key"]):
                inner = _parsed_override(found["value"])
                yield from _strings(found["value"])
                yield from _strings(inner) if inner is not None else ()
            elif (inner := _parsed_override(found["value"])) is not None:
                yield from _found(inner)
            elif any(mark in found["value"] for mark in "{[(") and text(found["value"], ()) != found["value"]:
                yield found["value"]  # where the secret in it ends is not known


def _strings(value: Any) -> Iterator[str]:
    """The strings in a secret that are specific enough to be found elsewhere."""
    if isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(inner)
    elif isinstance(value, str) and is_filled(value) and len(value) >= _SHORTEST_WORD:
        yield value
        yield from (line for line in value.splitlines() if len(line) >= 2 * _SHORTEST)
        if found := _CREDENTIALS.fullmatch(value):
            yield found[1]


def _secret_keys(value: Mapping[Any, Any], parent: str) -> set[Any]:
    """The keys under which secrets stand: by their names, also as in `wandb: {key: ...}`, or by that of a pair.

    A pair is `{name: api_key, value: ...}`, as environments and headers are often written.
    """
    hidden = {name for name in value if is_secret(str(name)) or (name in _SHORT and is_secret(f"{parent} {name}"))}
    places = {str(name).lower(): inner for name, inner in value.items()}
    if any(isinstance(places.get(word), str) and is_secret(places[word]) for word in _NAMES):
        hidden |= {name for name in value if str(name).lower() in _VALUES}
    return hidden


def _places(value: Sequence[Any]) -> set[int]:
    """Where in a list the value of an option stands, as after `--password`, or of a pair [Authorization, ...]."""
    options = (isinstance(inner, str) and inner.startswith("-") and is_secret(inner) for inner in value)
    places = {place + 1 for place, is_option in enumerate(options) if is_option}
    if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], str):
        is_pair = len(WORDS.findall(value[0])) > 1 or value[0].lower() in HEADERS or is_random(value[1])
        places |= {1} if is_secret(value[0]) and is_pair else set()
    return places


def _parsed(value: str) -> Any:
    """The containers in a JSON text; None where it is none."""
    if value[:1] in ("{", "[") and len(value) <= _LONGEST_PARSED:
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict | list) else None
    return None


@lru_cache(maxsize=1024)
def _parsed_override(typed: str) -> Any:
    """The containers that an override's value stands for; None where there are none, or Hydra cannot read it."""
    if not any(mark in typed for mark in "{[") or len(typed) > _LONGEST_PARSED:
        return None
    from hydra.core.override_parser.types import ChoiceSweep, Override

    try:
        value = _parser().parse_override(f"x={typed}").value()
        if isinstance(value, ChoiceSweep):
            value = [Override._convert_value(one) for one in value.list]
    except Exception:  # whatever Hydra's grammar raises: it will say so itself
        return None
    return value if isinstance(value, dict | list) else None


@cache
def _parser() -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


def _as_override(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_as_override(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_as_override, value)) + "]"
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    plain = not isinstance(value, str) or value == REDACTED or re.fullmatch(r"[\w./:+-]+", value)
    return str(value) if plain else json.dumps(value, ensure_ascii=False)


@lru_cache(maxsize=1024)
def _forms(secret: str) -> frozenset[str]:
    """The forms in which a secret may stand in a text: as it is, escaped, in a URL, in base64."""
    forms = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    forms |= {quote(secret, safe=""), quote(secret), quote_plus(secret), secret.replace("'", "''")}
    forms |= {secret.replace("'", "'\"'\"'"), " ".join(secret.split())}
    content = secret.encode("utf-8", "surrogatepass")
    if len(content) >= _SHORTEST:
        for shift in range(3):  # where it starts within a group of three bytes
            encoded = base64.b64encode(bytes(shift) + content)
            inside = encoded[(0, 2, 3)[shift] : len(encoded) - (0, 4, 4)[(shift + len(content)) % 3]].decode()
            forms |= {inside, inside.translate(str.maketrans("+/", "-_"))}
    return frozenset(form for form in forms if len(form) >= _SHORTEST_WORD)


def _without(line: str, secret: str) -> str:
    if len(secret) >= _SHORTEST and not secret.isalpha():
        return line.replace(secret, REDACTED)
    if secret.isalpha() and len(secret) < _SHORTEST:
        return line  # an ordinary word
    return re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", REDACTED, line)


def _without_encoded(found: re.Match[str]) -> str:
    """JSON in base64, if there is a secret in it."""
    try:
        content = base64.b64decode(found[0] + "=" * (-len(found[0]) % 4), b"-_" if set(found[0]) & set("-_") else None)
        inner = json.loads(content)
    except (ValueError, RecursionError):
        return found[0]
    return REDACTED if any(_found(inner)) else found[0]
