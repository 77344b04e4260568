from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lockdec.data import openmoji
from lockdec.data.openmoji import NameParts, OpenMoji, SplitKind
from lockdec.errors import ConfigError
from tests.data.fresh_process import output

KINDS: tuple[SplitKind, ...] = ("compositional", "random", "concept")


@pytest.fixture(scope="module")
def drawings() -> OpenMoji:
    return OpenMoji()


def caption(data: OpenMoji, name: str) -> str:
    return data.captions[data.ids.index(name)][0]


def test_every_drawing_has_its_unicode_name(drawings: OpenMoji) -> None:
    assert len(drawings) == 3953
    assert len({references[0] for references in drawings.captions}) == 3953
    assert caption(drawings, "1F469-1F3FD-200D-1F692") == "woman firefighter medium skin tone"
    assert caption(drawings, "1F1E9-1F1EA") == "flag germany"
    assert caption(drawings, "1F3F4-E0067-E0062-E0073-E0063-E0074-E007F") == "flag scotland"
    assert caption(drawings, "1F3F3-FE0F-200D-1F308") == "rainbow flag"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("woman firefighter medium skin tone", NameParts("firefighter", ("woman",), ("medium",))),
        ("man light skin tone curly hair", NameParts("", ("man",), ("light",), "curly hair")),
        (
            "woman in manual wheelchair facing right dark skin tone",
            NameParts("in manual wheelchair", ("woman",), ("dark",), direction="facing right"),
        ),
        (
            "woman and man holding hands medium-light skin tone dark skin tone",
            NameParts("holding hands", ("woman", "man"), ("medium-light", "dark")),
        ),
        ("family man woman girl boy", NameParts("family", ("man", "woman", "girl", "boy"))),
        ("person bald", NameParts("", ("person",), hair="bald")),
        ("hammer and wrench", NameParts("hammer and wrench")),
        ("woman\N{RIGHT SINGLE QUOTATION MARK}s hat", NameParts("woman\N{RIGHT SINGLE QUOTATION MARK}s hat")),
        ("merman", NameParts("merman")),
        ("medium-dark skin tone", NameParts("", tones=("medium-dark",))),
    ],
)
def test_names_come_apart_into_their_parts(name: str, parts: NameParts) -> None:
    assert NameParts.of(name) == parts


def test_no_word_of_a_name_is_lost(drawings: OpenMoji) -> None:
    for part, (name,) in zip(drawings.parts, drawings.captions, strict=True):
        tones = " ".join(f"{tone} skin tone" for tone in part.tones)
        words = f"{part.concept} {' '.join(part.person)} {part.hair} {part.direction} {tones}".split()
        left_out = sorted(name.split())
        for word in words:
            left_out.remove(word)
        assert left_out == [] or (left_out == ["and"] and len(part.person) == 2)


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_splits_are_disjoint_cover_all_and_have_the_sizes_asked_for(kind: SplitKind, seed: int) -> None:
    splits = OpenMoji(kind, seed).splits
    assert sorted(splits["train"] + splits["val"] + splits["test"]) == list(range(3953))
    assert (len(splits["val"]), len(splits["test"])) == (400, 400)


@pytest.mark.parametrize("kind", KINDS)
def test_the_split_seed_draws_the_split(kind: SplitKind) -> None:
    first, again, other = (OpenMoji(kind, seed) for seed in (0, 0, 1))
    assert first.splits == again.splits
    assert first.fingerprint == again.fingerprint
    shared = set(first.splits["test"]) & set(other.splits["test"])
    assert len(shared) < 200
    assert first.fingerprint != other.fingerprint


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("limit", [None, 160])
def test_compositional_holds_out_new_combinations_of_known_parts(seed: int, limit: int | None) -> None:
    data = OpenMoji("compositional", seed, limit=limit)
    train = [data.parts[row] for row in data.splits["train"]]
    known: dict[str, set[Any]] = {
        "concept": {part.concept for part in train},
        "person": {part.person for part in train},
        "tone": {tone for part in train for tone in part.tones},
        "hair": {part.hair for part in train},
        "direction": {part.direction for part in train},
    }
    for row in data.splits["val"] + data.splits["test"]:
        part = data.parts[row]
        assert not part.concept or part.concept in known["concept"]
        assert not part.person or part.person in known["person"]
        assert set(part.tones) <= known["tone"]
        assert not part.hair or part.hair in known["hair"]
        assert not part.direction or part.direction in known["direction"]
        assert part not in train
        assert part.tones or part.person or part.hair or part.direction
    names = {data.captions[row] for row in data.splits["train"]}
    assert not names & {data.captions[row] for row in data.splits["val"] + data.splits["test"]}


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_concept_holds_out_base_drawings_with_all_their_variants(seed: int) -> None:
    data = OpenMoji("concept", seed)
    concepts = {
        split: {data.parts[row].concept or data.parts[row].person or data.parts[row].hair for row in rows}
        for split, rows in data.splits.items()
    }
    assert not concepts["train"] & concepts["val"]
    assert not concepts["train"] & concepts["test"]
    assert not concepts["val"] & concepts["test"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [32, 96, 160])
def test_a_limited_set_is_a_small_one_of_the_same_kind(kind: SplitKind, limit: int) -> None:
    data = OpenMoji(kind, limit=limit)
    assert len(data) == limit
    assert 0 < len(data.splits["val"]) <= limit // 8
    assert 0 < len(data.splits["test"]) <= limit // 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test": 4000}, r"data\.val=400 data\.test=4000"),
        ({"val": 0}, r"data\.val=0"),
        ({"test": 3000}, r"data\.test=3000: data\.split=compositional can hold out only"),
        ({"limit": 8}, r"data\.limit=8: from 32 to 3953"),
        ({"resolution": 0}, r"data\.resolution=0"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OpenMoji(**arguments)


def test_drawings_are_rendered_on_white_at_the_resolution(drawings: OpenMoji) -> None:
    rows = [drawings.ids.index(name) for name in ("1F34E", "1F469-1F3FD-200D-1F692", "1F469-1F3FF-200D-1F692")]
    apple, medium, dark = (picture for picture in OpenMoji(resolution=96).inputs(rows))
    for picture in (apple, medium, dark):
        assert isinstance(picture, Image.Image)
        assert (picture.mode, picture.size) == ("RGB", (96, 96))
        assert picture.getpixel((0, 0)) == (255, 255, 255)
    red, green, blue = np.asarray(apple)[48, 48].tolist()
    assert red > 150 > max(green, blue)  # OpenMoji's apple is #ea5a47
    face = [np.asarray(picture)[44, 48].astype(int).sum() for picture in (medium, dark)]
    assert face[0] > face[1]
    assert np.array_equal(np.asarray(apple), np.asarray(OpenMoji(resolution=96).inputs(rows[:1])[0]))


def test_the_resolution_is_part_of_the_inputs_but_not_of_the_captions(drawings: OpenMoji) -> None:
    small = OpenMoji(resolution=64)
    assert small.captions == drawings.captions
    assert small.inputs_fingerprint != drawings.inputs_fingerprint
    assert small.fingerprint != drawings.fingerprint


def test_a_changed_drawing_changes_the_fingerprint(
    tmp_path: Path, drawings: OpenMoji, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = openmoji._drawings()
    for name in drawings.ids[:40]:
        (tmp_path / f"{name}.svg").write_bytes((source / f"{name}.svg").read_bytes())
    monkeypatch.setattr(openmoji, "_drawings", lambda: tmp_path)
    before = OpenMoji("random", val=4, test=4)
    changed = tmp_path / f"{drawings.ids[7]}.svg"
    changed.write_bytes(changed.read_bytes().replace(b"#", b"!", 1))
    after = OpenMoji("random", val=4, test=4)
    assert len(before) == 40
    assert before.inputs_fingerprint != after.inputs_fingerprint
    assert before.splits == after.splits


def test_it_is_the_same_in_another_process_and_needs_no_torch(drawings: OpenMoji) -> None:
    code = (
        "import sys; from lockdec.data.openmoji import OpenMoji; "
        "print([OpenMoji(kind).fingerprint for kind in ('compositional', 'random', 'concept')], "
        "OpenMoji(limit=160).fingerprint, 'torch' in sys.modules)"
    )
    here = [OpenMoji(kind).fingerprint for kind in KINDS]  # with a hash seed of its own
    assert here[0] == drawings.fingerprint
    assert output(code, 1) == f"{here} {OpenMoji(limit=160).fingerprint} False"
