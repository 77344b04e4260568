"""Keeps secrets out of everything that a run writes.

Three kinds of secrets are recognised: values whose key has the name of a secret, values of environment variables with
such a name, and texts that look like a well-known kind of key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

REDACTED = "[redacted]"
_SHORTEST = 8  # characters of a secret; a shorter value would be found in ordinary text
_LAST_WORDS = {"token", "password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials"}
_KEYS = {"api", "access", "private", "secret", "auth", "signing", "encryption", "account"}
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}"
    r"|AKIA[0-9A-Z]{16}|xox[abpr]-[A-Za-z0-9-]{10,}|glpat-[A-Za-z0-9_-]{16,}|wandb_v\d_[A-Za-z0-9_]{20,}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,})"
)
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
_ASSIGNED = re.compile(r"(?<![\w.@-])([\w.@+~/-]+)=('[^'\n]*'|\"[^\"\n]*\"|[^\s,}\])'\"]+)")


@lru_cache(maxsize=4096)  # asked for every environment variable, whenever something is written
def is_secret(name: str) -> bool:
    """Whether a key, an option or an environment variable of this name holds a secret.

    `api_key`, `HF_TOKEN` and `dbPassword` do; `batch_tokens`, `token_f1` and `artifact_key` do not.
    """
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words:
        return False
    joined = {"apikey", "authtoken", "accesskey", "secretkey"}
    if words[-1] == "key":
        return bool(_KEYS & set(words[-2:-1]))
    return words[-1] in _LAST_WORDS | joined or (words[-1] == "pwd" and len(words) > 1)  # PWD is the working directory


def redacted(value: Any) -> Any:
    """A value made of plain containers, without its secrets."""
    return _redacted(value, known())


def _redacted(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        return {
            text(str(name), secrets): REDACTED
            if is_secret(str(name)) and _is_filled(inner)
            else _redacted(inner, secrets)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redacted(inner, secrets) for inner in value]
    return text(value, secrets) if isinstance(value, str) else value


def text(line: str, secrets: Sequence[str] | None = None) -> str:
    """The text without its secrets: known values, known formats, and the value in `name=value` if the name is one.

    Args:
        secrets: what `known` returns, so that many texts can share one call; None calls it.
    """
    for secret in known() if secrets is None else secrets:
        line = line.replace(secret, REDACTED)
    line = _IN_ADDRESS.sub(REDACTED, _SHAPES.sub(REDACTED, line))
    return _ASSIGNED.sub(_without_value, line)


def known() -> list[str]:
    """The values of environment variables named like secrets, the longest first: one may be part of another."""
    values = {value for name, value in os.environ.items() if is_secret(name) and len(value) >= _SHORTEST}
    return sorted(values, key=len, reverse=True)


def _without_value(found: re.Match[str]) -> str:
    name, value = found.groups()
    filled = value.strip("'\"").lower() not in ("", "null", "none", "true", "false", "???", REDACTED)
    return f"{name}={REDACTED}" if filled and is_secret(name) else found[0]


def _is_filled(value: Any) -> bool:
    return value not in (None, "", "???") and not isinstance(value, bool)
