"""States that another tool has written: read as they are, and refused in one line where they are not right."""

from __future__ import annotations

import hashlib
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lockdec.encoders.features import Features
from lockdec.errors import ConfigError, DataError
from tests.encoders.kinds import Given

IDS = ["b", "a", "ü c"]
LENGTHS = np.array([2, 1, 3])
STATES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
PADDED = np.full((3, 3, 4), np.nan, np.float32)  # what lies beyond the lengths is not read
PADDED[0, :2], PADDED[1, :1], PADDED[2] = STATES[:2], STATES[2:3], STATES[3:]


def write(folder: Path, states: Any = STATES, lengths: Any = LENGTHS, ids: list[str] = IDS) -> Path:
    np.save(folder / "states.npy", states)
    if lengths is not None:
        np.save(folder / "lengths.npy", lengths)
    (folder / "ids.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")
    return folder


def tensors(folder: Path, **named: torch.Tensor) -> Path:
    write(folder)
    (folder / "states.npy").unlink()
    (folder / "lengths.npy").unlink()
    save_file(named, folder / "states.safetensors")
    return folder


FORMS: dict[str, Callable[[Path], Path]] = {
    "npy, flat": write,
    "npy, padded": lambda folder: write(folder, PADDED),
    "npy, float64": lambda folder: write(folder, STATES.astype(np.float64)),
    "safetensors, flat": lambda folder: tensors(
        folder, states=torch.from_numpy(STATES), lengths=torch.from_numpy(LENGTHS)
    ),
    "safetensors, padded": lambda folder: tensors(
        folder, states=torch.from_numpy(PADDED), lengths=torch.from_numpy(LENGTHS)
    ),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_an_id_gets_its_own_states(form: str, tmp_path: Path) -> None:
    encoder = Features(str(FORMS[form](tmp_path)))
    encoded = encoder.encode(["ü c", "b"])
    assert encoder.dim == 4
    assert encoded.mask.tolist() == [[True, True, True], [True, True, False]]
    assert encoded.states[0].numpy().tolist() == STATES[3:].tolist()
    assert encoded.states[1, :2].numpy().tolist() == STATES[:2].tolist()


def test_without_lengths_all_states_are_real(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    (tmp_path / "three").mkdir()
    one = Features(str(write(tmp_path / "two", STATES[:3], None))).encode(["a"])
    assert one.states.tolist() == [[STATES[1].tolist()]]
    many = Features(str(write(tmp_path / "three", np.nan_to_num(PADDED), None))).encode(["a", "b"])
    assert many.mask.all()
    assert many.states.shape == (2, 3, 4)


def test_bfloat16_and_a_list_of_ids_are_read(tmp_path: Path) -> None:
    folder = tensors(tmp_path, states=torch.from_numpy(STATES[:3]).bfloat16())
    (folder / "ids.txt").unlink()
    (folder / "ids.json").write_text('["b", "a", "c"]')
    states = Features(str(folder)).encode(["c"]).states
    assert states.equal(torch.from_numpy(STATES[2:3]).bfloat16().float()[None])


def test_arrays_of_the_data_are_handed_on() -> None:
    encoded = Features(dim=4).encode([STATES, STATES[0]])
    assert encoded.states[0].equal(torch.from_numpy(STATES))
    assert encoded.mask.sum(dim=1).tolist() == [6, 1]
    with pytest.raises(DataError, match=r"an input of shape \(6, 3\): .* with encoder\.dim=4 channels"):
        Features(dim=4).encode([STATES[:, :3]])
    with pytest.raises(DataError, match=r"without encoder\.path reads arrays, not 'a'"):
        Features(dim=4).encode(["a"])


def spoilt(row: int, value: float) -> Any:
    states = STATES.copy()
    states[row, 1] = value
    return states


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "wrong rank": (lambda folder: write(folder, STATES[0]), r"states\.npy: an array of shape \(4,\).* rank 3"),
    "no numbers": (lambda folder: write(folder, STATES.astype(str)), r"states\.npy: an array of .* kind 'U'"),
    "pickled": (lambda folder: write(folder, np.array([{}, []], object)), r"states\.npy: not a \.npy file of numbers"),
    "NaN": (lambda folder: write(folder, spoilt(4, np.nan)), r"id 'ü c', state 1: not every number is finite"),
    "infinite": (lambda folder: write(folder, spoilt(2, np.inf)), r"id 'a', state 0: not every number is finite"),
    "twice": (
        lambda folder: write(folder, ids=["a", "b", "a"]),
        r"ids\.txt row 3: id 'a' occurs twice \(first in row 1",
    ),
    "empty id": (lambda folder: write(folder, ids=["a", "", "b"]), r"ids\.txt: ids must be non-empty texts"),
    "few ids": (lambda folder: write(folder, PADDED, None, ["a"]), r"states of 3 inputs, but ids\.txt has 1 ids"),
    "few lengths": (lambda folder: write(folder, lengths=LENGTHS[:2]), r"the lengths have shape \(2,\).* asks for 3"),
    "no length": (lambda folder: write(folder, lengths=np.array([0, 3, 3])), r"asks for 3, each at least 1"),
    "wrong sum": (lambda folder: write(folder, lengths=LENGTHS + 1), r"6 states, but the lengths add up to 9"),
    "too long": (lambda folder: write(folder, PADDED, LENGTHS + 1), r"input 3 has 4 states by its length, .* for 3"),
    "no states": (lambda folder: write(folder).joinpath("states.npy").unlink(), r"one of states\.npy and .* none is"),
    "both": (lambda folder: write(folder).joinpath("ids.json").write_text("[]"), r"ids\.txt and ids\.json .* both are"),
    "other bytes": (lambda folder: write(folder).joinpath("ids.txt").write_bytes(b"\xff"), r"ids\.txt: cannot be read"),
    "no tensor": (lambda folder: tensors(folder, x=torch.ones(3, 4)), r"no tensor states \(there are: x\)"),
    "torn": (
        lambda folder: tensors(folder, x=torch.ones(3, 4)).joinpath("states.safetensors").write_bytes(b"x"),
        r"states\.safetensors: not a safetensors file",
    ),
}


@pytest.mark.parametrize("case", list(BAD))
def test_what_is_wrong_is_said_in_one_line(case: str, tmp_path: Path) -> None:
    spoil, message = BAD[case]
    spoil(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        Features(str(tmp_path))
    assert "\n" not in str(error.value)


def test_an_id_of_the_data_that_has_no_states_is_refused_before_any_work(tmp_path: Path) -> None:
    encoder = Features(str(write(tmp_path)))
    encoder.check(Given(["a", "b", "ü c"], "array"))
    with pytest.raises(DataError, match=r"ids\.txt: no id 'd' among its 3, but the data has it"):
        encoder.check(Given(["a", "d", "b"], "array"))
    with pytest.raises(DataError, match=r"found by id, but the data's inputs are ndarray"):
        encoder.check(Given([STATES, STATES, STATES], "array"))


def test_exactly_one_of_path_and_dim_is_given(tmp_path: Path) -> None:
    for path, dim in ((None, None), (str(tmp_path), 3)):
        with pytest.raises(ConfigError, match=r"give either path, a folder of states, or dim"):
            Features(path, dim)
    with pytest.raises(DataError, match="no such folder"):
        Features(str(tmp_path / "gone"))


def test_the_fingerprint_is_of_the_files(tmp_path: Path) -> None:
    before = Features(str(write(tmp_path))).fingerprint
    assert Features(str(write(tmp_path))).fingerprint == before
    assert Features(str(write(tmp_path, ids=["b", "a", "c"]))).fingerprint != before
    assert Features(str(write(tmp_path, lengths=np.array([1, 2, 3])))).fingerprint != before
    assert Features(str(write(tmp_path, spoilt(0, 0.5)))).fingerprint != before


@pytest.mark.parametrize("form", ["npy", "safetensors"])
@pytest.mark.parametrize("bad", [None, 0, 6, 13, 19])
def test_a_state_that_is_not_finite_is_found_wherever_it_is(
    form: str, bad: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States are checked a few inputs at a time; here two of ten."""
    monkeypatch.setattr("lockdec.encoders.features._CHECKED_AT_ONCE", 2 * 2 * 4)
    states = np.random.default_rng(0).normal(size=(10, 2, 4)).astype(np.float32)
    states[7, 1] = np.nan  # beyond the length of that input
    if bad is not None:
        states[bad // 2, bad % 2, 3] = np.inf
    lengths = np.array([2] * 7 + [1] + [2] * 2)
    ids = [f"id {row}" for row in range(10)]
    if form == "npy":
        folder = write(tmp_path, states, lengths, ids)
    else:
        folder = tensors(tmp_path, states=torch.from_numpy(states), lengths=torch.from_numpy(lengths))
        (folder / "ids.txt").write_text("\n".join(ids))
    if bad is None:
        assert Features(str(folder)).encode(["id 9"]).states.equal(torch.from_numpy(states[9:]))
    else:
        with pytest.raises(DataError, match=rf"id 'id {bad // 2}', state {bad % 2}: not every number is finite"):
            Features(str(folder))


def test_a_process_reads_a_file_again_only_if_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    digest = hashlib.file_digest

    def noted(file: Any, name: str) -> Any:
        hashed.append(Path(file.name).name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    monkeypatch.setattr("lockdec.store._SETTLED", 10**7)
    write(tmp_path)
    time.sleep(0.05)  # a file that has just been written may change once more without a change of its times
    prints = {Features(str(tmp_path)).fingerprint for _ in range(3)}
    assert (len(prints), sorted(hashed)) == (1, ["ids.txt", "lengths.npy", "states.npy"])
    np.save(tmp_path / "states.npy", spoilt(0, 0.5))
    prints |= {Features(str(tmp_path)).fingerprint}
    assert (len(prints), hashed[3:]) == (2, ["states.npy"])
    np.save(tmp_path / "states.npy", spoilt(0, np.nan))
    with pytest.raises(DataError, match="id 'b', state 0: not every number is finite"):
        Features(str(tmp_path))


def test_ids_are_found_in_any_unicode_form(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "ü c")
    encoder = Features(str(write(tmp_path, ids=["b", "a", decomposed])))
    assert encoder.encode(["ü c"]).states.equal(encoder.encode([decomposed]).states)
    with pytest.raises(DataError, match=r"ids.txt row 3: id 'ü c' occurs twice \(first in row 2"):
        Features(str(write(tmp_path, ids=["b", decomposed, "ü c"])))
