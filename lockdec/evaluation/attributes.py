"""How often captions get the attributes of an input right: who, which colour, which key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lockdec.data.captions import CaptionSet, Lexicon, fold
from lockdec.errors import ConfigError


def require_attributes(key: str, attributes: Any) -> None:
    """Raise ConfigError, naming the key, unless these are None or, for each attribute, the words of its values."""
    lists = list(attributes.values()) if isinstance(attributes, Mapping) else [None]
    named = all(
        isinstance(words, Sequence)
        and not isinstance(words, str)
        and len(words) > 0
        and all(isinstance(word, str) and word.strip() for word in words)
        for words in lists
    )
    if attributes is not None and not named:
        raise ConfigError(
            f"{key}={attributes}: for each attribute the words of its values, such as "
            "{colour: [red, dark green], size: [small, large]}"
        )


def lexicon_of(data: CaptionSet, attributes: Mapping[str, Sequence[str]] | None) -> Lexicon:
    """The attributes that the config names by their words; without them, those that the data declare."""
    if attributes is None:
        return data.attributes
    return {name: {words: words for words in values} for name, values in attributes.items()}


def unmentioned(key: str, attributes: Mapping[str, Sequence[str]] | None, data: CaptionSet) -> list[str]:
    """The words of the attributes that no caption of the data mentions, as `colour: purple`.

    Args:
        key: of the attributes in the config, for errors.
        attributes: as the config names them; None for those that the data declare, which need no check.

    Raises:
        ConfigError: no caption mentions any of them.
    """
    if attributes is None:
        return []
    reader = AttributeReader(lexicon_of(data, attributes))
    said = {(name, value) for several in data.captions for text in several for name, values in reader.read(text).items()
            for value in values}  # fmt: skip
    missing = [f"{name}: {words}" for name, several in attributes.items() for words in several
               if (name, words) not in said]  # fmt: skip
    if not said:
        raise ConfigError(f"{key}={dict(attributes)}: no caption has any of these words")
    return missing


class AttributeReader:
    """Finds the values of attributes in captions by their words.

    Args:
        lexicon: the words of each value of each attribute. Where the words of two values of one attribute overlap, as
            in "light" and "medium-light", the longer ones count.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._values = {
            name: {fold(words): value for value, words in values.items()} for name, values in lexicon.items()
        }
        self._patterns = {
            name: re.compile(
                rf"(?<![\w-])(?:{'|'.join(re.escape(words) for words in sorted(values, key=len)[::-1])})(?![\w-])"
            )
            for name, values in self._values.items()
        }

    @property
    def attributes(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._values)

    def read(self, caption: str) -> dict[str, tuple[str, ...]]:
        """The values of each attribute that a caption mentions, in its order."""
        text = fold(caption)
        return {
            name: tuple(self._values[name][found] for found in pattern.findall(text))
            for name, pattern in self._patterns.items()
        }

    def accuracies(self, captions: Sequence[str], references: Sequence[Sequence[str]]) -> Mapping[str, float]:
        """For each attribute, the share of inputs whose caption mentions the same values as their first reference.

        Inputs whose reference does not mention the attribute do not count; an attribute of no reference is left out.
        """
        right: dict[str, list[bool]] = {name: [] for name in self._values}
        for caption, several in zip(captions, references, strict=True):
            predicted = self.read(caption)
            for name, values in self.read(several[0]).items():
                if values:
                    right[name].append(predicted[name] == values)
        return {name: sum(found) / len(found) for name, found in right.items() if found}
