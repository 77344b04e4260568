"""Secrets as providers issue them and as people, programs and files write them: planted.txt, read.

`python -m tests.redaction.planted` prints how many of each kind are found. With files or folders as arguments, it
prints what would be redacted in each line of their texts.
"""

from __future__ import annotations

import random
import re
import string
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lockdec.redaction import known, text

LETTERS, SMALL, CAPITALS = string.ascii_letters, string.ascii_lowercase, string.ascii_uppercase
ALPHABETS = {
    "b": LETTERS + string.digits,
    "l": SMALL + string.digits,
    "u": CAPITALS + string.digits,
    "h": "0123456789abcdef",
    "H": "0123456789ABCDEF",
    "d": string.digits,
    "w": LETTERS + string.digits + "-_",
    "s": LETTERS + string.digits + "+/",
}
PASSWORDS = {"word": "Tr0ub4dor-x91", "signs": "p@ss/w:rd!9", "words": "correct horse battery staple"}
NAMES = ("password", "api_key", "AUTH_TOKEN", "clientSecret")
TEXTS = {".py", ".md", ".json", ".jsonl", ".log", ".csv", ".yaml", ".txt", ".toml", ".sh"}


@dataclass(frozen=True)
class Planted:
    """A secret in a line.

    Attributes:
        kind: the section of planted.txt.
        written: as it stands there.
        line: the line.
        parts: what must not be left of it.
    """

    kind: str
    written: str
    line: str
    parts: tuple[str, ...]

    @property
    def found(self) -> bool:
        """Whether redaction leaves nothing of it."""
        left = text(self.line)
        return not any(part in left for part in self.parts)


def planted() -> Iterator[Planted]:
    """Everything in planted.txt, the generated parts drawn from a fixed seed."""
    rng = random.Random(7)
    kind = ""
    for row in Path(__file__).with_name("planted.txt").read_text(encoding="utf-8").splitlines():
        if row.startswith("["):
            kind = row.strip("[]")
        elif row and not row.startswith("# "):
            yield from _read(kind, row, rng)


def _read(kind: str, row: str, rng: random.Random) -> Iterator[Planted]:
    written = row.encode("latin-1", "backslashreplace").decode("unicode_escape")
    group, _, form = kind.partition(": ")
    if group == "formats":
        secret = generated(written, rng)
        lines = [line for line in re.split(r"\\n|\n", secret) if line and "---" not in line]
        yield Planted(kind, row, f"sent {secret} there", tuple(line[-10:] for line in lines))
    elif group == "names":
        for name in written.split():
            yield Planted(kind, name, f"{name}={PASSWORDS['word']}", (PASSWORDS["word"],))
    elif group == "ways":
        secret = PASSWORDS[form.split(",")[0]]
        for name in NAMES:
            yield Planted(kind, row, written.format(n=name, v=secret), (secret.split()[-1],))
    else:
        secret = generated("{b11}", rng)
        while not re.search(r"\d.*[A-Z]|[A-Z].*\d", secret):
            secret = generated("{b11}", rng)
        yield Planted(kind, row, written.format(v=secret), (secret,))


def generated(form: str, rng: random.Random) -> str:
    """A secret of a form in which `{b20}` stands for 20 characters of an alphabet, and `{U}` for a UUID."""

    def drawn(found: re.Match[str]) -> str:
        if found[0] == "{U}":
            return "-".join(generated(f"{{h{length}}}", rng) for length in (8, 4, 4, 4, 12))
        return "".join(rng.choices(ALPHABETS[found[1]], k=int(found[2])))

    return re.sub(r"\{(?:U|(\w)(\d+))\}", drawn, form)


def _counts() -> None:
    rows: dict[str, list[Planted]] = {}
    for secret in planted():
        rows.setdefault(secret.kind, []).append(secret)
    total = [sum(secret.found for secrets in rows.values() for secret in secrets), sum(map(len, rows.values()))]
    for kind, secrets in rows.items():
        print(f"{kind:32}{sum(secret.found for secret in secrets):6} of {len(secrets):5} found")
    print(f"{'together':32}{total[0]:6} of {total[1]:5} found")


def _in_files(places: list[str]) -> None:
    secrets, size, lines = known(), 0, 0
    for place in map(Path, places):
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.suffix in TEXTS and path.is_file():
                content = path.read_text(encoding="utf-8", errors="replace")
                size += len(content)
                for number, line in enumerate(content.splitlines(), 1):
                    if (left := text(line, secrets)) != line:
                        lines += 1
                        print(f"{path}:{number}: {left.strip()[:160]}")
    print(f"{lines} lines of {size / 1e6:.1f} MB")


if __name__ == "__main__":
    _in_files(sys.argv[1:]) if sys.argv[1:] else _counts()
