"""Spoken phrases: what is drawn, the split, and eSpeak NG itself where its package is installed."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lockdec.data import phrases
from lockdec.data.folder import Folder
from lockdec.data.phrases import PROPERTIES, Phrase, draw, split
from lockdec.errors import ConfigError, DataError


def test_phrases_are_distinct_and_follow_from_the_seed() -> None:
    drawn = draw(800, 0)
    assert len(set(drawn)) == 800
    assert draw(800, 0) == drawn != draw(800, 1)
    for name, values in PROPERTIES.items():
        counts = Counter(getattr(each, name) for each in drawn)
        assert set(counts) == set(values)
        assert max(counts.values()) < 1.4 * 800 / len(values), "uniform"


def test_a_caption_says_who_says_what() -> None:
    phrase = Phrase("slow", "scottish", "woman", "three", "red", "birds")
    assert (phrase.words, phrase.caption) == ("three red birds", "a slow scottish woman: three red birds")


@pytest.mark.parametrize("seed", [0, 1])
def test_held_out_pairs_are_new_and_their_parts_are_known(seed: int) -> None:
    drawn = draw(800, 0)
    parts: dict[str, list[Phrase]] = {"train": [], "val": [], "test": []}
    for phrase, part in zip(drawn, split(drawn, seed), strict=True):
        parts[part].append(phrase)
    known = {(each.colour, each.thing) for each in parts["train"]}
    assert min(len(parts["val"]), len(parts["test"])) > 60
    for each in parts["val"] + parts["test"]:
        assert (each.colour, each.thing) not in known
        assert each.colour in {colour for colour, _ in known}
        assert each.thing in {thing for _, thing in known}


@pytest.mark.parametrize("count", [15, 3000])
def test_more_phrases_than_there_are_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=rf"--count={count}: from 16 to 2880 phrases"):
        draw(count, 0)


def test_without_its_package_the_command_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(SystemExit, match=r"lockdec: phrases are spoken by eSpeak NG: pip install 'lockdec\[speech\]'"):
        phrases.main([str(tmp_path / "phrases"), "--count=20"])


def test_the_sounds_are_those_of_the_captions(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="eSpeak NG is not installed")
    phrases.main([str(tmp_path / "phrases"), "--count=120"])
    folder = Folder(str(tmp_path / "phrases"))
    assert folder.captions == tuple((each.caption,) for each in draw(120, 0))
    pace = {name: [] for name in PROPERTIES["pace"]}  # type: dict[str, list[int]]
    for caption, sound in zip(folder.captions, folder.inputs(range(120)), strict=True):
        pace[caption[0].split()[1]].append(len(np.asarray(sound)))
    mean = {name: float(np.mean(lengths)) for name, lengths in pace.items()}
    assert mean["slow"] > 1.3 * mean["moderate"] > 1.3 * 1.3 * mean["fast"]


def test_a_voice_that_is_not_there_is_refused() -> None:
    pytest.importorskip("espeakng_loader", reason="eSpeak NG is not installed")
    with pytest.raises(DataError, match=r"does not speak 'a word' in the voice martian"):
        phrases.Speech().say("a word", "martian", 150)
