"""Whisper's encoder beside CTranslate2's, whose file it reads."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import ctranslate2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lockdec.encoders.sound import hear
from lockdec.encoders.whisper import MODEL, WHEEL, WhisperTiny, read_ctranslate2
from lockdec.errors import DataError


def sounds() -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    time = np.arange(24_000) / 16_000
    return [
        (0.3 * np.sin(2 * np.pi * 220 * time) * (1 + np.sin(8 * time))).astype(np.float32),
        (0.05 * rng.normal(size=9_000)).astype(np.float32),
    ]


@pytest.fixture(scope="module")
def model() -> Path:
    [place] = importlib.util.find_spec(WHEEL).submodule_search_locations  # type: ignore[union-attr, misc]
    return Path(place) / MODEL


@pytest.fixture(scope="module")
def whisper() -> WhisperTiny:
    return WhisperTiny(pool=1)


def test_states_are_those_of_ctranslate2(whisper: WhisperTiny, model: Path) -> None:
    reference = ctranslate2.models.Whisper(str(model.parent), device="cpu", compute_type="float32")
    frames = hear(sounds(), 30, "x").frames.numpy()
    theirs = torch.from_numpy(np.array(reference.encode(ctranslate2.StorageView.from_array(frames))))
    ours = whisper.encode(sounds())
    assert ours.mask.sum(1).tolist() == [75, 29]  # a state for each fiftieth of a second
    for row, mask in enumerate(ours.mask):
        torch.testing.assert_close(ours.states[row][mask], theirs[row, : mask.sum()], atol=2e-3, rtol=1e-3)


def test_pooled_states_are_means(whisper: WhisperTiny) -> None:
    long, short = whisper.encode(sounds()), WhisperTiny(pool=25).encode(sounds())
    torch.testing.assert_close(short.states[0], long.states[0].view(3, 25, -1).mean(1))
    torch.testing.assert_close(short.states[1, 1], long.states[1, 25:29].mean(0))


def test_a_shorter_window_changes_states_a_little(whisper: WhisperTiny) -> None:
    long, short = whisper.encode(sounds()).states, WhisperTiny(seconds=5, pool=1).encode(sounds()).states
    similar = torch.cosine_similarity(long, short, dim=-1)[0]
    assert 0.7 < float(similar.mean()) < 0.9999


def test_untrained_weights_are_the_same_each_time_and_leave_the_generator_alone(whisper: WhisperTiny) -> None:
    before = torch.random.get_rng_state()
    first, second = WhisperTiny(untrained=True).fingerprint, WhisperTiny(untrained=True).fingerprint
    assert first == second != WhisperTiny().fingerprint
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "content", [b"", b"\6\0\0\0", b"version https://git-lfs.github.com/spec/v1\n", b"\5\0\0\0" * 9]
)
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"model\.bin: not a model of CTranslate2"):
        read_ctranslate2(path)


def test_a_truncated_file_is_refused(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(model.read_bytes()[:1_000_000])
    with pytest.raises(DataError, match=r"model\.bin: not a model of CTranslate2"):
        read_ctranslate2(path)


def test_sizes_that_the_file_does_not_have_cost_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(struct.pack("<IH2sIIH2sBIBI", 6, 2, b"a\0", 1, 1, 2, b"x\0", 1, 2**32 - 1, 0, 2**32 - 4))
    with pytest.raises(DataError, match="not a model of CTranslate2"):
        read_ctranslate2(path)
