from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockdec.data.captions import Modality
from lockdec.data.fewshot import Pair, hold_out, support_set
from lockdec.data.openmoji import OpenMoji
from lockdec.errors import ConfigError
from tests.data.caption_rows import Texts
from tests.faults.warm import Warm

DRAWINGS = OpenMoji()
TRAIN = set(DRAWINGS.splits["train"])


@given(st.integers(1, 3153), st.integers(1, 3153), st.integers(0, 2**32))
def test_support_sets_of_one_seed_are_nested(few: int, many: int, seed: int) -> None:
    few, many = sorted((few, many))
    assert support_set(DRAWINGS, many, seed)[:few] == support_set(DRAWINGS, few, seed)


@given(st.integers(1, 3153), st.integers(0, 2**32))
def test_shots_are_different_training_inputs_with_their_own_caption(shots: int, seed: int) -> None:
    pairs = support_set(DRAWINGS, shots, seed)
    rows = {pair.index for pair in pairs}
    assert len(rows) == len(pairs) == shots
    assert rows <= TRAIN
    assert all(pair.caption in DRAWINGS.captions[pair.index] for pair in pairs)


def test_the_support_seed_draws_the_shots_and_leaves_the_test_set_alone() -> None:
    before = DRAWINGS.splits["test"]
    draws = [frozenset(pair.index for pair in support_set(DRAWINGS, 64, seed)) for seed in range(8)]
    assert len(set(draws)) == 8
    assert DRAWINGS.splits["test"] is before


def test_each_input_gives_one_of_its_captions() -> None:
    data = Texts([[f"{row} a", f"{row} b", f"{row} c"] for row in range(102)], (100, 1, 1))
    pairs = support_set(data, 100, 0)
    assert {pair.caption[-1] for pair in pairs} == {"a", "b", "c"}
    assert support_set(data, 30, 0) == pairs[:30]


def test_with_all_references_each_caption_of_the_same_inputs_is_a_pair() -> None:
    data = Texts([[f"{row} {letter}" for letter in "abc"[: 1 + row % 3]] for row in range(102)], (100, 1, 1))
    one, every = support_set(data, 20, 4), support_set(data, 20, 4, "all")
    assert every == [Pair(pair.index, caption) for pair in one for caption in data.captions[pair.index]]
    assert len(every) > len(one) == 20
    assert support_set(data, 9, 4, "all") == every[: sum(len(data.captions[pair.index]) for pair in one[:9])]


@given(st.integers(2, 300), st.integers(0, 9), st.sampled_from(["one", "all"]))
def test_an_eighth_of_the_inputs_is_held_out_with_all_their_captions(shots: int, seed: int, references: str) -> None:
    data = Texts([[f"{row} {letter}" for letter in "abc"[: 1 + row % 3]] for row in range(302)], (300, 1, 1))
    pairs = support_set(data, shots, seed, references)
    learned, held_out = hold_out(pairs)
    assert learned + held_out == pairs
    inputs, others = ({pair.index for pair in several} for several in (learned, held_out))
    assert not inputs & others
    assert len(others) == max(1, shots // 8)


@pytest.mark.parametrize(
    ("shots", "message"),
    [
        (5000, r"fewshot\.shots=5000: there are only 3153 training inputs"),
        (0, r"fewshot\.shots=0: from 1 to 3153"),
    ],
)
def test_impossible_shots_are_refused(shots: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        support_set(DRAWINGS, shots, 0)


@pytest.mark.parametrize("modality", get_args(Modality))
def test_too_many_shots_are_refused_whatever_the_inputs_are(modality: Modality) -> None:
    data = Texts([["a"], ["b"], ["c"], ["d"]], (2, 1, 1))
    data.modality = modality
    with pytest.raises(ConfigError, match=r"fewshot\.shots=3: there are only 2 training inputs"):
        support_set(data, 3, 0)


def test_the_shots_are_the_same_in_another_process(warm: Warm, tmp_path: Path) -> None:
    code = (
        "from lockdec.data.openmoji import OpenMoji; from lockdec.data.fewshot import support_set; "
        "print([pair.index for pair in support_set(OpenMoji(), 64, 3)]); print(hash('a'))"
    )
    here = [pair.index for pair in support_set(DRAWINGS, 64, 3)]
    done = warm.python(code, cwd=tmp_path)
    there, order = done.stdout.splitlines()
    assert int(order) != hash("a"), f"{done.stderr}: sets have the same order in both processes"
    assert there == str(here)
    assert support_set(DRAWINGS, 1, 3)[0] == Pair(here[0], DRAWINGS.captions[here[0]][0])
