"""Pieces of music as a caption set: forms, splits and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lockdec.data import pieces
from lockdec.data.composing import PROPERTIES
from lockdec.data.folder import Folder
from lockdec.data.pieces import COMBINED, Pieces
from lockdec.errors import ConfigError
from lockdec.evaluation.attributes import AttributeReader


def small(**options: Any) -> Pieces:
    return Pieces(**{"count": 600, "val": 40, "test": 40, **options})


def test_pieces_are_distinct_and_follow_from_the_seed() -> None:
    pieces = small()
    assert len(set(pieces.properties)) == 600
    assert small().fingerprint == pieces.fingerprint != small(seed=1).fingerprint
    assert small().inputs([3, 5]) == pieces.inputs([3, 5]) != small(seed=1).inputs([3, 5])


def test_each_form_is_its_modality() -> None:
    [symbols], [roll], [sound] = (small(form=form).inputs([7]) for form in ("symbols", "roll", "sound"))
    assert isinstance(symbols, str)
    assert symbols.startswith("t")
    assert isinstance(roll, Image.Image)
    assert roll.size == (64, 64)
    assert isinstance(sound, np.ndarray)
    assert sound.ndim == 1
    assert [small(form=form).modality for form in ("symbols", "roll", "sound")] == ["text", "image", "array"]


def test_forms_share_their_text() -> None:
    assert small(form="roll").text_fingerprint == small(form="symbols").text_fingerprint
    assert small(form="roll").fingerprint != small(form="symbols").fingerprint


def test_properties_are_independent_and_uniform() -> None:
    pieces = Pieces()
    for name, values in PROPERTIES.items():
        counts = [sum(getattr(each, name) == value for each in pieces.properties) for value in values]
        expected = len(pieces) / len(values)
        assert max(abs(count - expected) for count in counts) < 4 * expected**0.5


def test_captions_begin_with_every_wording() -> None:
    first = [captions[0].split()[0] for captions in small().captions]
    assert set(first) == {"a", "over", "slow", "moderate", "fast"}


def test_each_caption_tells_every_attribute() -> None:
    pieces = small()
    reader = AttributeReader(pieces.attributes)
    for properties, captions in zip(pieces.properties, pieces.captions, strict=True):
        for caption in captions:
            assert reader.read(caption) == {name: (getattr(properties, name),) for name in PROPERTIES}


def test_unseen_combinations_are_in_no_training_piece() -> None:
    pieces = small(split="compositional")
    combinations = {
        name: {tuple(getattr(pieces.properties[row], part) for part in COMBINED) for row in rows}
        for name, rows in pieces.splits.items()
    }
    assert combinations["test"]
    assert combinations["val"]
    assert combinations["train"].isdisjoint(combinations["test"] | combinations["val"])
    assert combinations["val"].isdisjoint(combinations["test"])
    for part in range(len(COMBINED)):  # each value by itself has been seen
        assert {each[part] for each in combinations["test"]} <= {each[part] for each in combinations["train"]}


def test_an_unseen_value_is_in_no_training_piece_and_in_all_others() -> None:
    pieces = small(split="attribute", unseen="a drone")
    for name, rows in pieces.splits.items():
        assert {pieces.properties[row].texture == "a drone" for row in rows} == {name != "train"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unseen": "lydian"}, r"data\.unseen=lydian is not one of: c, c sharp, d"),
        ({"split": "attribute", "unseen": "lydian"}, r"data\.unseen=lydian is not one of: c, c sharp, d"),
        ({"wrong_notes": 1.5}, r"data\.wrong_notes=1\.5: a share, from 0 to 1"),
        ({"count": 10}, r"data\.count=10: from 32 to 20000 pieces"),
        ({"val": 300, "test": 300}, r"data\.val=300 data\.test=300: at least 1 each, together below 600 pieces"),
        ({"limit": 5000}, r"data\.limit=5000: from 32 to 600 pieces, or null for all"),
        (
            {"limit": 32, "split": "attribute", "unseen": "e flat"},
            r"data\.unseen=e flat: [01] of 32 pieces have it, and val and test need one each; .*data\.limit",
        ),
        (
            {"count": 32, "val": 15, "test": 16, "split": "compositional", "split_seed": 5},
            r"data\.val=15 data\.test=16: data\.split=compositional .* none is left for train; hold out fewer",
        ),
    ],
)
def test_what_is_not_available_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**options)


def test_pieces_are_written_as_files_that_the_folder_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pieces.main([str(tmp_path / "pieces"), "--count=40", "--seed=3", "--wrong-notes=0.2"])
    assert "40 pieces, each a .mid and a .wav" in capsys.readouterr().out
    read, made = (
        Folder(str(tmp_path / "pieces")),
        Pieces(count=40, seed=3, wrong_notes=0.2, val=5, test=5, form="sound"),
    )
    assert read.captions == made.captions
    assert read.splits == made.splits
    [one], [other] = read.inputs([7]), made.inputs([7])
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-4)  # of 16 bits
    assert len(list((tmp_path / "pieces").glob("*.mid"))) == 40
    with pytest.raises(SystemExit, match=r"lockdec: data\.count=3: from"):
        pieces.main([str(tmp_path), "--count=3"])
