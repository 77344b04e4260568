"""Drawings and their names in another language: the rows of OpenMoji, in one part or two."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from lockdec.data.named_drawings import NamedDrawings
from lockdec.data.openmoji import OpenMoji
from lockdec.errors import ConfigError


def test_rows_captions_and_splits_are_those_of_the_drawings() -> None:
    plain, named = OpenMoji(limit=160, resolution=32), NamedDrawings(limit=160, resolution=32)
    assert (named.ids, named.captions, named.splits) == (plain.ids, plain.captions, plain.splits)
    assert named.text_fingerprint == plain.text_fingerprint
    assert named.modality == "several"
    row = named.splits["test"][0]
    [example] = named.inputs([row])
    assert isinstance(example, dict)
    [drawing] = plain.inputs([row])
    assert isinstance(drawing, Image.Image)
    assert isinstance(example["image"], Image.Image)
    assert example["image"].tobytes() == drawing.tobytes()
    assert example["text"] == named.names[row]


def test_every_drawing_has_a_german_name() -> None:
    named = NamedDrawings(show="name", resolution=32)
    assert (named.modality, named.prompt) == ("text", None)
    names = dict(zip(named.captions, named.inputs(range(len(named))), strict=True))
    assert names["flag germany",] == "flagge deutschland"
    assert names["woman singer medium-dark skin tone",] == "sängerin mitteldunkle hautfarbe"


def test_what_is_shown_is_in_the_fingerprint() -> None:
    shown: list[dict[str, Any]] = [{}, {"show": "drawing"}, {"show": "name"}, {"language": "fr"}]
    assert len({NamedDrawings(limit=40, resolution=32, **options).fingerprint for options in shown}) == 4


@pytest.mark.parametrize("language", ["de", "ru"])  # its German names have no capitals, its Russian ones have
def test_inputs_in_another_case_are_other_inputs(language: str) -> None:
    lower, keep = (NamedDrawings(language, "name", resolution=32, case=case) for case in ("lower", "keep"))
    rows = range(len(lower.ids))
    assert (lower.inputs(rows) == keep.inputs(rows)) == (lower.inputs_fingerprint == keep.inputs_fingerprint)
    assert (lower.inputs(rows) == keep.inputs(rows)) == (language == "de")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"language": "en"}, r"^data\.language=en: the captions are English"),
        ({"language": "xx"}, r"^data\.language=xx is not one of: en, es"),
    ],
)
def test_what_is_not_there_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        NamedDrawings(limit=40, **options)
