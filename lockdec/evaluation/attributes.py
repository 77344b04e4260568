"""How often captions get the attributes of an input right: who, which colour, which key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lockdec.data.captions import Lexicon, fold


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
