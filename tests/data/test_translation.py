"""Pairs of texts: what they are, how they are split, what is refused."""

from __future__ import annotations

from pathlib import Path

import emoji
import pytest

from lockdec.data.translation import EmojiNames, TatoebaPairs, translation_pairs
from lockdec.errors import ConfigError, DataError

LINES = ["Go.\tGeh.\tCC-BY 2.0 (France) #1", "Hi.\tHallo!\tCC-BY", "Hi.\tGrüß Gott!\tCC-BY", "I see.\tIch verstehe."]
MANY = [f"phrase {number}\tSatz {number}\tCC-BY" for number in range(60)]


def write(folder: Path, lines: list[str]) -> str:
    path = folder / "deu.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_every_emoji_has_its_name_in_both_languages() -> None:
    pairs = EmojiNames()
    assert (len(pairs), pairs.modality) == (3972, "text")
    names = dict(zip(pairs.texts, pairs.captions, strict=True))
    assert names["woman singer medium-dark skin tone"] == ("sängerin mitteldunkle hautfarbe",)
    assert names["bus stop"] == ("bushaltestelle",)
    assert pairs.inputs([0, 5]) == [pairs.texts[0], pairs.texts[5]]
    assert {name: len(rows) for name, rows in pairs.splits.items()} == {"train": 3172, "val": 400, "test": 400}
    held_out = {pairs.texts[row] for split in ("val", "test") for row in pairs.splits[split]}
    assert not held_out & {pairs.texts[row] for row in pairs.splits["train"]}


@pytest.mark.parametrize("split", ["random", "compositional", "concept"])
def test_the_split_is_the_same_in_both_directions(split: str) -> None:
    there = translation_pairs(split=split)  # type: ignore[arg-type]
    back = translation_pairs(source="de", target="en", split=split)  # type: ignore[arg-type]
    assert there.ids == back.ids
    assert there.splits == back.splits
    assert back.captions == tuple((text,) for text in there.inputs(range(len(there))))
    assert there.fingerprint != back.fingerprint
    other = translation_pairs(split=split, split_seed=1)  # type: ignore[arg-type]
    assert other.splits != there.splits


def test_a_file_of_sentence_pairs(tmp_path: Path) -> None:
    path = write(tmp_path, LINES)
    there = TatoebaPairs(path, val=1, test=1)
    assert dict(zip(there.texts, there.captions, strict=True)) == {
        "go.": ("geh.",),
        "hi.": ("hallo!", "grüß gott!"),
        "i see.": ("ich verstehe.",),
    }
    back = TatoebaPairs(path, "de", "en", val=1, test=1)
    assert dict(zip(back.texts, back.captions, strict=True))["grüß gott!"] == ("hi.",)
    assert sorted(len(rows) for rows in there.splits.values()) == [1, 1, 1]
    limited = translation_pairs(write(tmp_path, MANY), limit=40)
    assert {name: len(rows) for name, rows in limited.splits.items()} == {"train": 30, "val": 5, "test": 5}
    whole = translation_pairs(write(tmp_path, MANY), val=5, test=5)
    assert translation_pairs(write(tmp_path, [*MANY[:-1], "x\ty"]), val=5, test=5).fingerprint != whole.fingerprint


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*MANY, "alone"], r"data\.path=.*deu\.txt line 61: two texts with a tab between them are needed"),
        (["\tleer", *MANY], r"deu\.txt line 1: two texts"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        translation_pairs(write(tmp_path, lines))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.path=/nowhere: cannot be read \(No such file or directory\)"):
        translation_pairs("/nowhere")
    (tmp_path / "latin.txt").write_bytes("Go.\tGrüße".encode("latin-1"))
    with pytest.raises(DataError, match=r"data\.path=.*latin\.txt line 1: not UTF-8 \(byte 6\)"):
        translation_pairs(str(tmp_path / "latin.txt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "xx"}, r"data\.source=xx is not one of: en, "),
        ({"source": "de"}, r"data\.source=de data\.target=de: two different languages"),
        ({"limit": 5}, r"data\.limit=5: from 32 to 3972 pairs"),
        ({"val": 4000}, r"data\.val=4000 data\.test=400: at least 1 each, together below 3972 pairs"),
        (
            {"path": "x", "split": "concept"},
            r"data\.split=concept: the pairs of data\.path can only be split at random",
        ),
        ({"path": "x", "target": "fr"}, r"data\.source=en data\.target=fr: data\.path has en and de"),
    ],
)
def test_what_is_not_there_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        translation_pairs(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("language", [language for language in emoji.LANGUAGES if language != "en"])
def test_every_language_of_emoji_can_be_read(language: str) -> None:
    pairs = EmojiNames(source=language, target="en")
    assert len(pairs) == len(set(pairs.texts)) == 3972
    assert all(text.strip() for text in pairs.texts)
    assert pairs.splits == EmojiNames(source="en", target="de").splits


def test_all_lines_without_two_texts_are_told_together(tmp_path: Path) -> None:
    lines = [f"{number}\tx" for number in range(30)]
    for number in (*range(2, 14), 20):
        lines[number] = "no tab"
    (tmp_path / "deu.txt").write_text("\n".join(lines))
    with pytest.raises(
        DataError, match=r"deu.txt lines 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 3 more: two texts with a tab"
    ):
        translation_pairs(str(tmp_path / "deu.txt"))
