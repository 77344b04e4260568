from __future__ import annotations

import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lockdec.data.captions import Split
from lockdec.data.openmoji import OpenMoji
from lockdec.encoders.efficientnet import EfficientNetLite0
from lockdec.encoders.encoded import STATES, EncodedSet, normalised
from lockdec.encoders.normalisation import Normalisation
from lockdec.errors import ConfigError, DataError, StoreError
from tests.encoders.array_encoder import Arrays, Scaled

KINDS = ("none", "standardise", "whiten")
MIXING = np.random.default_rng(9).normal(size=(6, 6)).astype(np.float32)


def arrays(count: int = 60, seed: int = 0) -> list[NDArray[Any]]:
    """Correlated channels of unlike mean and scale, one to five states an input."""
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(rng.integers(1, 6), 6)) @ MIXING * [1, 2, 5, 0.1, 1, 3] + 7).astype(np.float32)
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def drawings() -> OpenMoji:
    return OpenMoji("random", limit=32, resolution=64)


@pytest.fixture(scope="module")
def image_encoder() -> EfficientNetLite0:
    return EfficientNetLite0(resolution=64)


@pytest.mark.parametrize("kind", KINDS)
def test_cached_equals_uncached(
    kind: str, tmp_path: Path, drawings: OpenMoji, image_encoder: EfficientNetLite0
) -> None:
    cached = EncodedSet.write(tmp_path, image_encoder, drawings, kind, batch_size=5)
    rows = [17, 3, 31, 3]
    fresh = image_encoder.encode(drawings.inputs(rows))
    batch = cached.batch(rows)
    assert batch.states.dtype == torch.float32
    assert torch.equal(batch.mask, fresh.mask)
    # float16 keeps 11 bits.
    torch.testing.assert_close(batch.states, cached.normalisation(fresh.states), rtol=2**-10, atol=2e-3)
    assert (cached.ids, cached.dim, cached.max_states, len(cached)) == (drawings.ids, 1280, 4, 32)


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_unlike_length_keep_their_own_states(kind: str, tmp_path: Path) -> None:
    data, encoder = Arrays(arrays()), Scaled(6, weight=2.0)
    cached = EncodedSet.write(tmp_path, encoder, data, kind, batch_size=7, dtype="float32")
    for rows in ([4], list(range(60)), [59, 0, 12]):
        fresh, batch = encoder.encode(data.inputs(rows)), cached.batch(rows)
        assert torch.equal(batch.mask, fresh.mask)
        wanted = cached.normalisation(fresh.states) * fresh.mask[:, :, None]
        torch.testing.assert_close(batch.states, wanted, rtol=1e-4, atol=1e-4)
    assert cached.max_states == max(len(array) for array in data.arrays)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_new_inputs_have_the_very_states_that_stored_ones_have(dtype: str, tmp_path: Path) -> None:
    data, encoder = Arrays(arrays()), Scaled(6)
    cached = EncodedSet.write(tmp_path, encoder, data, "standardise", dtype=dtype)
    stored, fresh = (
        cached.batch(range(60)),
        normalised(encoder.encode(data.inputs(range(60))), cached.normalisation, dtype),
    )
    assert torch.equal(fresh.states, stored.states)
    assert torch.equal(fresh.mask, stored.mask)
    assert not stored.mask.all()


def test_standardised_training_states_have_mean_0_and_deviation_1(tmp_path: Path) -> None:
    data = Arrays(arrays(200))
    cached = EncodedSet.write(tmp_path, Scaled(6), data, "standardise", dtype="float32")
    batch = cached.batch(data.splits["train"])
    states = batch.states[batch.mask]
    torch.testing.assert_close(states.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(states.std(0, correction=0), torch.ones(6), atol=1e-4, rtol=0)


def test_whitened_training_states_are_uncorrelated_and_of_like_size(tmp_path: Path) -> None:
    data = Arrays(arrays(400))
    cached = EncodedSet.write(tmp_path, Scaled(6), data, "whiten", dtype="float32")
    batch = cached.batch(data.splits["train"])
    covariance = torch.cov(batch.states[batch.mask].T, correction=0)
    # By the definition: each principal variance v of the standardised channels comes out as v / (v + 1%).
    raw = np.concatenate([data.arrays[row] for row in data.splits["train"]]).astype(np.float64)
    variances = np.linalg.eigvalsh(np.corrcoef(raw.T))
    np.testing.assert_allclose(
        np.linalg.eigvalsh(covariance.double().numpy()), np.sort(variances / (variances + 0.01)), atol=1e-3
    )
    assert variances.max() / variances.min() > 100


def same(one: Normalisation, other: Normalisation) -> bool:
    pairs = zip((one.mean, one.scale, one.rotation), (other.mean, other.scale, other.rotation), strict=True)
    return all(a is b is None or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


@pytest.mark.parametrize("kind", ["standardise", "whiten"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_normalisation_is_fitted_on_training_rows_only(kind: str, split: Split, tmp_path: Path) -> None:
    data, changed = Arrays(arrays()), Arrays(arrays())
    row = data.splits[split][0]
    changed.arrays[row] = changed.arrays[row] + 100
    fitted = []
    for name, captions in (("a", data), ("b", changed)):
        (tmp_path / name).mkdir()
        fitted.append(EncodedSet.write(tmp_path / name, Scaled(6), captions, kind).normalisation)
    assert same(*fitted) == (split != "train")


def test_pooled_is_the_mean_of_the_real_states(tmp_path: Path) -> None:
    data = Arrays(arrays(600))
    cached = EncodedSet.write(tmp_path, Scaled(6), data, "none", dtype="float32")
    rows = list(range(599, -1, -1))
    wanted = torch.stack([torch.from_numpy(data.arrays[row]).mean(0) for row in rows])
    torch.testing.assert_close(cached.pooled(rows), wanted)


def test_an_encoded_set_is_pickled_by_its_file(tmp_path: Path) -> None:
    cached = EncodedSet.write(tmp_path, Scaled(6), Arrays(arrays()))
    again = pickle.loads(pickle.dumps(cached))
    assert again.batch([3, 0]).states.equal(cached.batch([3, 0]).states)


@pytest.mark.parametrize("row", [-1, 10**18])
def test_an_input_that_is_not_there_is_refused(row: int, tmp_path: Path) -> None:
    states = EncodedSet.write(tmp_path, Scaled(6), Arrays(arrays()))._states
    for part in (([row], slice(1)), ([0], slice(10**6))):
        with pytest.raises(IndexError, match=r"states\.npy has \d+ inputs of \d+ states"):
            states[part]


def test_a_file_that_became_shorter_is_named(tmp_path: Path) -> None:
    cached = EncodedSet.write(tmp_path, Scaled(6), Arrays(arrays()))
    file = tmp_path / STATES
    os.truncate(file, file.stat().st_size // 2)
    cached.batch([0])
    with pytest.raises(StoreError, match=r"states\.npy has become shorter since it was opened"):
        cached.batch(range(len(cached)))


def test_states_stay_on_disk_and_nothing_else_is_left(tmp_path: Path) -> None:
    cached = EncodedSet.write(tmp_path, Scaled(6), Arrays(arrays()))
    cached.batch([0, 1])
    assert str(tmp_path / STATES) not in Path("/proc/self/maps").read_text()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "ids.json",
        "lengths.npy",
        "normalisation.safetensors",
        "states.npy",
    ]


def test_writing_again_gives_the_same_files(tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        EncodedSet.write(tmp_path, Scaled(6), Arrays(arrays()), "whiten")
        contents.append({file.name: file.read_bytes() for file in tmp_path.iterdir()})
    assert contents[0] == contents[1]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_states_that_cannot_be_stored_are_refused_by_their_input(value: float, tmp_path: Path) -> None:
    data = Arrays(arrays())
    data.arrays[57][0, 2] = value  # a test row, so that the normalisation stays finite
    with pytest.raises(DataError, match=r"'row 57'.*float16"):
        EncodedSet.write(tmp_path, Scaled(6), data, "none")


def test_an_error_of_the_encoder_names_the_input_or_all_of_its_batch(tmp_path: Path) -> None:
    """An array of rank 1 cannot be encoded alone, and one of other channels not beside the others."""
    for wrong, inputs in ((np.ones(3), "input 'row 17'"), (np.ones((2, 5)), "inputs 'row 16', .*'row 20' and 11 more")):
        data = Arrays(arrays())
        data.arrays[17] = wrong.astype(np.float32)
        with pytest.raises((RuntimeError, IndexError)) as caught:
            EncodedSet.write(tmp_path, Scaled(6), data, "none", batch_size=16)
        [note] = caught.value.__notes__
        assert re.fullmatch(f"raised while encoding {inputs}", note)


def test_an_unknown_normalisation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="normalise=white: white is not one of: none, standardise, whiten"):
        EncodedSet.write(tmp_path, Scaled(6), Arrays(arrays()), "white")
    assert not list(tmp_path.iterdir())  # before any work


@pytest.mark.parametrize("name", ["states.npy", "lengths.npy", "ids.json", "normalisation.safetensors"])
def test_a_folder_that_is_not_whole_is_refused_by_name(name: str, tmp_path: Path) -> None:
    EncodedSet.write(tmp_path / ".", Scaled(6), Arrays(arrays()))
    broken = tmp_path / "broken"
    for damage in (b"", None):
        shutil.copytree(tmp_path, broken, ignore=shutil.ignore_patterns("broken"))
        if damage is None:
            (broken / name).unlink()
        else:
            (broken / name).write_bytes(damage)
        with pytest.raises(StoreError, match="broken"):
            EncodedSet.open(broken)
        shutil.rmtree(broken)
