"""Drawings with their names in another language: examples in two parts, or one of them. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, cast

from lockdec.data.captions import Case, Input, Modality, Part, digest, in_case
from lockdec.data.openmoji import OpenMoji, SplitKind
from lockdec.data.translation import bare, require_language
from lockdec.errors import ConfigError

Shown: TypeAlias = Literal["both", "drawing", "name"]


class NamedDrawings(OpenMoji):
    """The drawings of `OpenMoji` and their names in another language (Unicode CLDR, by `emoji`), captioned in English.

    Rows, captions and splits are those of `OpenMoji`, whatever is shown.

    Args:
        language: of the names: any of `emoji` but English.
        show: "both" parts of an example, or one of them alone: the "drawing" or the "name".
        split, split_seed, resolution, val, test, limit, case: see `OpenMoji`.

    Raises:
        ConfigError, DataError: as `OpenMoji`; or there is no such language.
    """

    def __init__(
        self,
        language: str = "de",
        show: Shown = "both",
        split: SplitKind = "compositional",
        split_seed: int = 0,
        resolution: int = 128,
        val: int = 400,
        test: int = 400,
        limit: int | None = None,
        case: Case = "lower",
    ) -> None:
        if language == "en":
            raise ConfigError("data.language=en: the captions are English already; name another language")
        require_language("language", language)
        self.language, self.show = language, show
        modalities: dict[Shown, Modality] = {"both": "several", "drawing": "image", "name": "text"}
        self._modality = modalities[show]
        self.case = case  # before the inputs are hashed
        super().__init__(split, split_seed, resolution, val, test, limit, case)
        self.names = tuple(in_case(name, case) for name in drawing_names(self.ids, language))

    @property
    def prompt(self) -> str | None:
        return None if self.show == "name" else super().prompt

    def inputs(self, indices: Sequence[int]) -> list[Input]:
        """What is shown of these rows: a drawing, a name, or both by their modality."""
        if self.show == "name":
            return [self.names[row] for row in indices]
        drawings = super().inputs(indices)
        if self.show == "drawing":
            return drawings
        return [
            {"image": cast(Part, drawing), "text": self.names[row]}
            for drawing, row in zip(drawings, indices, strict=True)
        ]

    def _hash(self, ids: Sequence[str]) -> str:
        names = drawing_names(ids, self.language)
        cased = [in_case(name, self.case) for name in names] != [in_case(name, "lower") for name in names]
        return digest([self.show, super()._hash(ids), names, *(["keep"] if cased else [])])


def drawing_names(ids: Sequence[str], language: str) -> list[str]:
    """The names of emoji in a language, by their code points, as in `OpenMoji.ids`."""
    import emoji

    emoji.config.load_language(language)
    return [bare(emoji.EMOJI_DATA["".join(chr(int(point, 16)) for point in name.split("-"))][language]) for name in ids]
