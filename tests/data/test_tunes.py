"""Tunes in ABC: what is left of them, and what they are called."""

from __future__ import annotations

import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from lockdec.data.text import pretraining_text
from lockdec.data.tunes import Tunes, read_tune
from lockdec.errors import ConfigError
from tests.data.fresh_process import output

ABC = """X: 1
T: AMAZON -- HORNPIPE
R: hornpipe
M: C|
L: 1/8
K: G
uB>c \\
| d>g"Am"d>B {ab}e>dc>A | G>FG>A% a remark
B>GD>C | ((3ABA) !trill!C,2`^f'2 :|
|: uF>G |[K:D] a>ba>b |
"""


@pytest.fixture(scope="module")
def tunes() -> Tunes:
    return Tunes()


def test_a_tune_is_its_bars_and_its_caption() -> None:
    tune = read_tune(ABC, "ryan-0001", bars=99)
    assert tune is not None
    assert tune.caption == "a hornpipe in g major, 2/2"
    bars = ["b,>c", "d>gd>b, e>dc>a,", "g,>f,g,>a, b,>g,d,>c,", "(3a,b,a, c,,2^f'2"]
    assert tune.music == f"{bars[0]} | {bars[1]} | {bars[2]} | {bars[3]} :| f,>g, |"
    shorter = read_tune(ABC, "ryan-0001", bars=2)
    assert shorter is not None
    assert shorter.music == f"{bars[0]} | {bars[1]}"


@pytest.mark.parametrize(
    ("header", "caption"),
    [
        ("T:The Hag\nR:slipjig\nM:9/8\nK:Edor", "a slip jig in e dorian, 9/8"),
        ("T:Miss Gunning's Minuet\nM:3/4\nK:F#m % sharp", "a minuet in f sharp minor, 3/4"),
        ("T:Banish Misfortune\nM:6/8\nK:D Mixolydian", "a tune in d mixolydian, 6/8"),
        ("T:x\nG:Air\nM:C\nK:Bb", "an air in b flat major, 4/4"),
        ("T:x\nR:REEL\nM:C\nK:Amin", "a reel in a minor, 4/4"),
    ],
)
def test_captions_say_rhythm_key_and_metre(header: str, caption: str) -> None:
    tune = read_tune(f"X:1\n{header}\nabc|def|", "x", 8)
    assert tune is not None
    assert tune.caption == caption


@pytest.mark.parametrize(
    "text",
    ["X:1\nM:C\nK:Hp\nabc|", "X:1\nK:G\nabc|", "X:1\nM:C\nK:G\n|  |", "X:1\nM:C\nabc|", "X:1\nV:1\nM:C\nK:G\nabc|"],
)
def test_what_has_no_key_metre_or_note_or_several_voices_is_left_out(text: str) -> None:
    assert read_tune(text, "x", 8) is None


def test_the_collections_are_whole(tunes: Tunes) -> None:
    (corpus,) = find_spec("music21").submodule_search_locations  # type: ignore[union-attr,misc]
    names = Counter(name.split("-")[0] for name in tunes.ids)
    for name, folder in (("ryan", "ryansMammoth"), ("oneill", "oneills1850"), ("aird", "airdsAirs")):
        files = (Path(corpus) / "corpus" / folder).glob("*.abc")
        printed = sum(line.startswith("X:") for path in files for line in path.read_text("utf-8").splitlines())
        assert 0.95 * printed < names[name] <= printed
    assert {name: len(rows) for name, rows in tunes.splits.items()} == {"train": 3328, "val": 400, "test": 400}
    pattern = r"an? [a-z ]+ in [a-g]( flat| sharp)? [a-z]+, \d+/\d+"
    assert all(re.fullmatch(pattern, caption) for references in tunes.captions for caption in references)


def test_nothing_of_a_header_is_in_a_text(tunes: Tunes) -> None:
    assert all(re.fullmatch(r"[a-gxz0-9|:\[\](,'/<>^_=\- ]+", text) for text in tunes.texts)


def test_no_tune_is_in_two_splits_and_no_held_out_caption_in_the_pretraining_text(tunes: Tunes) -> None:
    assert len(set(tunes.texts)) == len(tunes.texts)
    assert any(len(references) > 1 for references in tunes.captions)  # equal tunes that the books name differently
    held_out = {*tunes.references("val"), *tunes.references("test")}
    assert not held_out & set(pretraining_text(tunes))


def test_the_split_seed_draws_and_a_limit_takes_a_part(tunes: Tunes) -> None:
    small = Tunes(limit=160, split_seed=1)
    assert {name: len(rows) for name, rows in small.splits.items()} == {"train": 120, "val": 20, "test": 20}
    assert Tunes(split_seed=1).splits != tunes.splits
    assert {name[:4] for name in Tunes(collections=["ryan"]).ids} == {"ryan"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bars": 0}, r"data\.bars=0: at least 1"),
        ({"collections": []}, r"data\.collections=\[\]"),
        ({"limit": 5000}, r"data\.limit=5000: from 32 to 4128"),
        ({"test": 4000}, r"data\.val=400 data\.test=4000"),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Tunes(**arguments)  # type: ignore[arg-type]


def test_music21_is_read_and_not_imported() -> None:
    code = (
        "import sys; from lockdec.data.tunes import Tunes; Tunes(limit=64); "
        "print({'music21', 'torch'} & set(sys.modules))"
    )
    assert output(code, 1) == "set()"
