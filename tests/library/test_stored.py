"""What captions of new inputs are compared with: the locked decoder, an unrelated input, the closest one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import lockdec
from lockdec.evaluation.finished import find_run
from lockdec.export import export
from lockdec.library.stored import StoredInputs, stored_inputs
from lockdec.store.reading import SUPPORT
from tests.conftest import TinyRun


@pytest.fixture(scope="module")
def captioner(tiny: TinyRun) -> lockdec.Captioner:
    return lockdec.load(tiny.folder)


@pytest.fixture(scope="module")
def stored(tiny: TinyRun) -> StoredInputs:
    found = stored_inputs(find_run(tiny.folder))
    assert found is not None
    return found


@pytest.fixture
def picture(tiny: TinyRun) -> Path:
    return sorted((tiny.folder / "drawings").iterdir())[0]


def test_the_support_set_is_the_one_that_was_learned(tiny: TinyRun, stored: StoredInputs) -> None:
    rows = [json.loads(line) for line in (tiny.folder / SUPPORT).read_text().splitlines()]
    assert len(rows) == tiny.result["fewshot"]["shots"]
    assert [(stored.encoded.ids[row], text) for row, text in stored.support] == [
        (row["id"], row["caption"]) for row in rows
    ]


def test_a_stored_input_of_the_support_set_is_its_own_neighbour(stored: StoredInputs) -> None:
    for row, text in stored.support[:4]:
        neighbour = stored.nearest(stored.encoded.batch([row]))
        assert neighbour is not None
        assert (neighbour.id, neighbour.text) == (stored.encoded.ids[row], text)
        assert neighbour.cosine == pytest.approx(1, abs=1e-5)


def test_the_neighbours_of_a_run_are_those_that_it_found_itself(tiny: TinyRun, stored: StoredInputs) -> None:
    rows = [json.loads(line) for line in (tiny.folder / "captions.jsonl").read_text().splitlines()]
    found = [stored.nearest(stored.encoded.batch([stored.encoded.ids.index(row["id"])])) for row in rows]
    assert [one and one.text for one in found] == [row["nearest_neighbour"] for row in rows]


def test_the_unrelated_input_is_far_from_the_closest_one(stored: StoredInputs) -> None:
    count = len(stored.encoded)
    for row, _ in stored.support[:4]:
        name, states = stored.unrelated(stored.encoded.batch([row]))
        other = stored.encoded.ids.index(name)
        assert min((other - row) % count, (row - other) % count) >= count // 2 - 1
        assert torch.equal(states.states, stored.encoded.batch([other]).states)


def test_a_comparison_says_what_the_run_says_of_the_same_inputs(
    captioner: lockdec.Captioner, tiny: TinyRun, picture: Path
) -> None:
    rows = [json.loads(line) for line in (tiny.folder / "captions.jsonl").read_text().splitlines()]
    found = captioner.compare(picture)
    assert found.locked == rows[0]["locked"]
    assert found.shuffled is not None
    said = {row["id"]: row["caption"] for row in rows}
    others = [captioner.compare(one).shuffled for one in sorted(picture.parent.iterdir())]
    known = [(other.text, said[other.id]) for other in others if other is not None and other.id in said]
    assert known
    assert all(text == caption for text, caption in known)


def test_comparing_draws_nothing_from_what_captions_draw(captioner: lockdec.Captioner, picture: Path) -> None:
    def drawn(between: bool) -> list[str]:
        first = captioner.caption(picture, strategy="nucleus", seed=5)
        if between:
            captioner.compare(picture, strategy="nucleus", seed=9)
        return [first[0].text, *(captioner.caption(picture, strategy="nucleus")[0].text for _ in range(3))]

    assert drawn(False) == drawn(True)
    assert captioner.compare(picture, strategy="nucleus", seed=3) == captioner.compare(
        picture, strategy="nucleus", seed=3
    )


def test_an_export_has_no_inputs_to_compare_with(tiny: TinyRun, picture: Path, tmp_path: Path) -> None:
    export(tiny.folder, tmp_path / "out")
    found = lockdec.load(tmp_path / "out").compare(picture)
    assert (found.shuffled, found.nearest_neighbour) == (None, None)
    assert found.locked == lockdec.load(tiny.folder).compare(picture).locked


def test_damaged_states_are_named(tiny: TinyRun, picture: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny.folder, tmp_path / "run")
    shutil.copytree(tiny.outputs / "stages", run / "stages", dirs_exist_ok=True)
    states = run / "stages" / "attach" / tiny.result["stages"]["attach"]["key"] / "states.npy"
    captioner = lockdec.load(run)
    states.write_bytes(states.read_bytes()[:-1] + b"x")
    with pytest.raises(lockdec.StoreError, match=r"states\.npy: missing or damaged"):
        captioner.compare(picture)


def test_what_cannot_be_compared_is_said_in_one_line(captioner: lockdec.Captioner, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(lockdec.DataError, match=r"bad\.png: not a picture of a kind"):
        captioner.compare(tmp_path / "bad.png")
    with pytest.raises(lockdec.ConfigError, match=r"evaluate\.strategy=best"):
        captioner.compare(Image.new("RGB", (8, 8)), strategy="best")
