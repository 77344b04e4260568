"""Icons out of a wheel: what is read of it, what the icons are called, and which of them stay together."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pytest

from lockdec.data.icons import Icons
from lockdec.data.text import pretraining_text
from lockdec.errors import ConfigError, DataError
from tests.conftest import run_tiny
from tests.data.fresh_process import output

FOLDER = "material/templates/.icons"


def svg(number: int, width: int = 24) -> bytes:
    """A drawing that differs for each number."""
    box = f"{number % 8 + 1} {number // 8 % 8 + 1}h{number // 64 + 2}v5z"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 24"><path d="M{box}"/></svg>'.encode()


def write_wheel(path: Path, files: Mapping[str, bytes]) -> Path:
    """A wheel with files in its folder of icons, and what else such a wheel has."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("material/__init__.py", "raise SystemExit('imported')")
        for name, content in files.items():
            archive.writestr(f"{FOLDER}/{name}", content)
    return path


def caption_of(data: Icons, name: str) -> tuple[str, ...]:
    return data.captions[data.ids.index(name)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """144 icons of 54 things, each drawn with lines and filled, 26 of one style, and some of the other collections."""
    things = [
        "-".join(name) for name in itertools.product(("box", "cat", "dog", "hat", "key", "sun"), ("one", "two", "six"))
    ]
    names = [f"{thing}{more}" for thing in things for more in ("", "-off", "-plus", "-variant")]
    names += [f"{name}-outline" for name in names]
    names += [f"{letter}mark" for letter in ascii_lowercase]
    files = {f"material/{name}.svg": svg(number) for number, name in enumerate(names)}
    files |= {
        "material/LICENSE": b"Apache",
        "material/fill-alt.svg": svg(199),
        "simple/company.svg": svg(200),
        "fontawesome/brands/company.svg": svg(201),
        "fontawesome/solid/house.svg": svg(202, 36),
        "fontawesome/solid/home-alt.svg": svg(202, 36),
        "fontawesome/regular/house.svg": svg(203),
        "octicons/home-16.svg": svg(204),
        "octicons/home-24.svg": svg(205),
        "octicons/home-fill-24.svg": svg(206),
        "octicons/law-16.svg": svg(207),
    }
    return write_wheel(tmp_path_factory.mktemp("icons") / "icons.whl", files)


@pytest.fixture(scope="module")
def icons(wheel: Path) -> Icons:
    return Icons(str(wheel), val=20, test=20)


def test_logos_and_smaller_drawings_of_an_octicon_are_left_out(icons: Icons) -> None:
    assert len(icons) == 144 + 26 + 6
    assert not [name for name in icons.ids if "company" in name]
    large = Icons(str(icons._wheel), val=20, test=20, resolution=24)
    home = large.inputs([icons.ids.index("octicons-home")])
    pixels = np.array(home[0])
    assert pixels.shape == (24, 24, 3)
    assert (pixels == 255).all(axis=-1).mean() > 0.5  # on white


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("material-cat-two-off", "cat two off"),
        ("material-cat-two-off-outline", "cat two off outline"),
        ("material-cat-two-variant-outline", "cat two outline"),
        ("material-fill-alt", "fill alt"),
        ("fontawesome-regular-house", "house outline"),
        ("octicons-home", "home outline"),
        ("octicons-home-fill", "home"),
        ("octicons-law", "law"),
    ],
)
def test_a_caption_is_the_name_and_says_what_is_drawn_with_lines(icons: Icons, name: str, caption: str) -> None:
    assert caption_of(icons, name) == (caption,)


def test_files_with_equal_content_are_one_input_with_all_their_names(icons: Icons) -> None:
    assert caption_of(icons, "fontawesome-solid-home-alt") == ("home", "house")
    assert "fontawesome-solid-house" not in icons.ids


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_styles_of_one_subject_are_in_one_split(wheel: Path, seed: int) -> None:
    data = Icons(str(wheel), split_seed=seed, val=20, test=20)
    assert {name: len(rows) for name, rows in data.splits.items()} == {"train": 136, "val": 20, "test": 20}
    subjects = {
        split: {icon.subject for row in rows for icon in data.icons[row]} for split, rows in data.splits.items()
    }
    assert not subjects["train"] & (subjects["val"] | subjects["test"])
    assert not subjects["val"] & subjects["test"]
    # By their two names, one drawing ties the houses to the homes.
    houses = {row for row, same in enumerate(data.icons) if {("house",), ("home",)} & {icon.subject for icon in same}}
    assert len(houses) == 4
    assert any(houses <= set(rows) for rows in data.splits.values())


def test_the_order_of_the_words_does_not_tell_subjects_apart(tmp_path: Path) -> None:
    names = ["material/circle-up", "fontawesome/solid/up-circle", *(f"material/thing-{n}" for n in range(6))]
    path = write_wheel(tmp_path / "a.whl", {f"{name}.svg": svg(number) for number, name in enumerate(names)})
    together = 0
    for seed in range(8):
        data = Icons(str(path), split_seed=seed, val=2, test=2)
        pair = {data.ids.index("material-circle-up"), data.ids.index("fontawesome-solid-up-circle")}
        together += any(pair <= set(rows) for rows in data.splits.values())
    assert together == 8


def test_by_concept_no_first_word_is_in_two_splits(wheel: Path) -> None:
    data = Icons(str(wheel), split="concept", val=30, test=30)
    first = {split: {data.captions[row][0].split()[0] for row in rows} for split, rows in data.splits.items()}
    assert not first["train"] & first["val"]
    assert not first["train"] & first["test"]
    assert {"box", "cat", "dog", "hat", "key", "sun"} & (first["val"] | first["test"])  # of 24 icons each


def test_groups_that_are_too_large_cannot_be_held_out(tmp_path: Path) -> None:
    names = [f"{thing}{style}" for thing in ("cat", "dog", "sun") for style in ("", "-outline")]
    path = write_wheel(tmp_path / "a.whl", {f"material/{name}.svg": svg(number) for number, name in enumerate(names)})
    with pytest.raises(ConfigError, match=r"data\.test=1: only 0 icons can be held out for it"):
        Icons(str(path), val=2, test=1)


def test_no_held_out_caption_is_in_the_text_for_pretraining(icons: Icons) -> None:
    held_out = {*icons.references("val"), *icons.references("test")}
    assert not held_out & set(icons.references("train"))
    assert not held_out & set(pretraining_text(icons))


def test_wide_drawings_keep_their_shape(icons: Icons) -> None:
    (picture,) = icons.inputs([icons.ids.index("fontawesome-solid-home-alt")])
    pixels = np.array(picture)
    assert pixels.shape == (128, 128, 3)
    assert (pixels[:21] == 255).all()  # 36 x 24 leaves a sixth of the square above and below
    assert (pixels[-21:] == 255).all()
    assert (pixels[21:-21] == 0).any()


def test_other_drawings_or_sizes_are_another_fingerprint(wheel: Path, icons: Icons, tmp_path: Path) -> None:
    assert Icons(str(wheel), val=20, test=20).fingerprint == icons.fingerprint
    assert Icons(str(wheel), val=20, test=20, resolution=64).inputs_fingerprint != icons.inputs_fingerprint
    files = {f"material/thing-{number}.svg": svg(number) for number in range(8)}
    one = Icons(str(write_wheel(tmp_path / "one.whl", files)), val=1, test=1)
    other = Icons(str(write_wheel(tmp_path / "other.whl", files | {"material/thing-3.svg": svg(9)})), val=1, test=1)
    assert one.ids == other.ids
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, r"a\.whl: no icons in it; it has to be the wheel of mkdocs-material"),
        ({"material/a.svg": b"<svg>" + b" " * (1 << 20)}, r"a\.svg: more than 1048576 bytes"),
        ({"material/a.svg": b'<svg><image href="b.png"/></svg>'}, r"a\.svg: refers to what is outside of it"),
        ({"material/a.svg": b"\xff"}, r"a\.svg: cannot be read as SVG"),
    ],
)
def test_a_wheel_that_cannot_be_used_says_why(files: Mapping[str, bytes], problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem):
        Icons(str(write_wheel(tmp_path / "a.whl", files)))


def test_a_damaged_wheel_is_named(wheel: Path, tmp_path: Path) -> None:
    content = bytearray(wheel.read_bytes())
    content[content.index(b"<svg") + 60] ^= 0xFF
    for name, damaged in (("cut", content[:-100]), ("changed", content), ("none", b"")):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=f"{name}: cannot be read as a wheel"):
            Icons(str(tmp_path / name))


def test_an_icon_that_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    files = {f"material/thing-{number}.svg": svg(number) for number in range(4)} | {"material/a.svg": b"no drawing"}
    data = Icons(str(write_wheel(tmp_path / "a.whl", files)), val=1, test=1)
    with pytest.raises(DataError, match=r"a\.whl material-a: cannot be rendered"):
        data.inputs(range(5))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"resolution": 0}, "data.resolution=0: at least 1 pixel"),
        ({"limit": 177}, "data.limit=177: from 32 to 176 icons, or null for all"),
        ({"val": 0}, "data.val=0 data.test=400: at least 1 each, together below 176 icons"),
    ],
)
def test_options_out_of_range_are_refused(wheel: Path, options: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        Icons(str(wheel), **options)  # type: ignore[arg-type]
    assert str(error.value) == problem


def test_icons_that_were_not_fetched_say_how(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"not fetched yet: lockdec fetch icons --outputs {tmp_path}"):
        run_tiny(tmp_path, "unfetched", "data=icons")


def test_a_limited_set_runs_through_the_pipeline(wheel: Path, tmp_path: Path) -> None:
    tiny = run_tiny(tmp_path, "icons", "data=icons", f"data.path={wheel}", "data.limit=96")
    assert tiny.result["status"] == "ok"


def test_needs_no_torch() -> None:
    assert output("import sys, lockdec.data.icons; print('torch' in sys.modules)", 1) == "False"
