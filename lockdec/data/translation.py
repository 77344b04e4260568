"""Pairs of a text and its translation, as a caption set whose inputs are texts. Needs no torch."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from os.path import expanduser
from pathlib import Path

from lockdec.data.captions import CaptionSet, Case, Input, Split, digest, fold, in_case
from lockdec.data.openmoji import NameParts, SplitKind, split_names
from lockdec.data.splits import random_split, sizes
from lockdec.data.utf8 import lines_of_text, read_utf8
from lockdec.errors import ConfigError, DataError

TATOEBA = ("en", "de")  # the languages of the columns of deu.txt
_TOLD = 10  # bad lines that an error lists


def translation_pairs(
    path: str | None = None,
    source: str = "en",
    target: str = "de",
    split: SplitKind = "random",
    split_seed: int = 0,
    val: int = 400,
    test: int = 400,
    limit: int | None = None,
    case: Case = "lower",
) -> CaptionSet:
    """The names of `emoji` in two languages, or the pairs of a file.

    Args:
        path: a tab-separated file such as deu.txt of manythings.org; None for the names of `emoji`.
        source, target: two languages: any of the fourteen of `emoji`, or en and de for a file.
        split: "random", or for emoji names also "compositional" or "concept"; see `OpenMoji`.
        split_seed: seed of the split.
        val, test: how many source texts to hold out.
        limit: use only this many source texts; val and test are then at most an eighth of it.
        case: "lower" folds texts and translations, "keep" keeps their case.

    Raises:
        ConfigError: a value of `data.*` is not available.
        DataError: the file cannot be read; the error names the line.
    """
    if path is None:
        return EmojiNames(source, target, split, split_seed, val, test, limit, case)
    if split != "random":
        raise ConfigError(f"data.split={split}: the pairs of data.path can only be split at random (use random)")
    return TatoebaPairs(path, source, target, split_seed, val, test, limit, case)


class TextPairs(CaptionSet):
    """Texts, each with one or more translations.

    Args:
        texts: the inputs, in the same case as captions and all different.
        ids, translations, splits, case: as in `CaptionSet`.
    """

    def __init__(
        self,
        ids: Sequence[str],
        texts: Sequence[str],
        translations: Sequence[Sequence[str]],
        splits: Mapping[Split, Sequence[int]],
        case: Case = "lower",
    ) -> None:
        self.texts = tuple(in_case(text, case) for text in texts)
        super().__init__(
            ids=ids,
            captions=translations,
            splits=splits,
            modality="text",
            inputs_fingerprint=digest(self.texts),
            case=case,
        )

    def inputs(self, indices: Sequence[int]) -> list[Input]:
        """The texts of these rows."""
        return [self.texts[row] for row in indices]


class EmojiNames(TextPairs):
    """The names of all 3,972 emoji (and parts of emoji) in two languages (Unicode CLDR, by `emoji`).

    The English names decide the split, so that it is the same for all languages.
    """

    def __init__(
        self,
        source: str = "en",
        target: str = "de",
        split: SplitKind = "random",
        split_seed: int = 0,
        val: int = 400,
        test: int = 400,
        limit: int | None = None,
        case: Case = "lower",
    ) -> None:
        import emoji

        if source == target:
            raise ConfigError(f"data.source={source} data.target={target}: two different languages")
        require_language("source", source)
        require_language("target", target)
        emoji.config.load_language([source, target])
        chosen = (emoji.STATUS["component"], emoji.STATUS["fully_qualified"])
        names: dict[str, tuple[str, str, str]] = {}
        for characters, entry in emoji.EMOJI_DATA.items():
            if entry["status"] in chosen and source in entry and target in entry:
                code_points = "-".join(f"{ord(character):04X}" for character in characters)
                names[code_points] = (bare(entry["en"]), bare(entry[source]), bare(entry[target]))
        ids = sorted(names)
        count, val, test = sizes("pairs", len(ids), limit, val, test)
        ids = _some(ids, count)
        parts = [NameParts.of(fold(names[name][0])) for name in ids]
        super().__init__(
            ids=ids,
            texts=[names[name][1] for name in ids],
            translations=[(names[name][2],) for name in ids],
            splits=split_names(parts, split, split_seed, val, test, exact=limit is None),
            case=case,
        )


class TatoebaPairs(TextPairs):
    """Sentence pairs from a tab-separated file: English, German, and a third column (attribution) that is ignored.

    A sentence that occurs in several lines, in whatever case, is one source with several translations, so no source is
    in two splits.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or one of its lines does not have two columns.
    """

    def __init__(
        self,
        path: str,
        source: str = "en",
        target: str = "de",
        split_seed: int = 0,
        val: int = 400,
        test: int = 400,
        limit: int | None = None,
        case: Case = "lower",
    ) -> None:
        if {source, target} != set(TATOEBA):
            raise ConfigError(f"data.source={source} data.target={target}: data.path has {' and '.join(TATOEBA)}")
        input_column, caption_column = TATOEBA.index(source), TATOEBA.index(target)
        sources: dict[str, str] = {}
        translations: dict[str, dict[str, str]] = {}
        for columns in _columns(Path(expanduser(path))):
            text, translation = columns[input_column], columns[caption_column]
            sources.setdefault(fold(text), text)
            translations.setdefault(fold(text), {}).setdefault(fold(translation), translation)
        texts = list(translations)
        count, val, test = sizes("pairs", len(texts), limit, val, test)
        texts = _some(texts, count)
        super().__init__(
            ids=[hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts],
            texts=[sources[text] for text in texts],
            translations=[list(translations[text].values()) for text in texts],
            splits=random_split(count, split_seed, val, test),
            case=case,
        )


def _columns(path: Path) -> list[list[str]]:
    rows, bad = [], []
    for number, line in enumerate(lines_of_text(read_utf8(path, "data.path=")), start=1):
        if not line.strip():
            continue
        columns = line.split("\t")
        if len(columns) < 2 or not all(column.strip() for column in columns[:2]):
            bad.append(number)
        rows.append(columns)
    if bad:
        several = f"lines {', '.join(map(str, bad[:_TOLD]))}" + (f" and {len(bad) - _TOLD:,} more" * (len(bad) > _TOLD))
        where = several if bad[1:] else f"line {bad[0]}"
        raise DataError(f"data.path={path} {where}: two texts with a tab between them are needed")
    return rows


def _some(rows: Sequence[str], count: int) -> list[str]:
    """So many of the rows, drawn at random, in their order."""
    chosen = set(random.Random(0).sample(rows, count))
    return [row for row in rows if row in chosen]


def require_language(key: str, language: str) -> None:
    """Raise ConfigError unless `emoji` has names in this language."""
    import emoji

    if language not in emoji.LANGUAGES:
        raise ConfigError(f"data.{key}={language} is not one of: {', '.join(emoji.LANGUAGES)}")


def bare(name: str) -> str:
    """A name of `emoji` as plain words."""
    return name.strip(":").replace("_", " ")
