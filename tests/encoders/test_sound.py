"""Log-mel spectrograms and the pooling of frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import WhisperFeatureExtractor

from lockdec.data.composing import SAMPLE_RATE
from lockdec.data.sounds import RATE
from lockdec.encoders.sound import LogMel, hear, mel_bands, pooled
from lockdec.errors import ConfigError, DataError


def tone(hertz: float, seconds: float) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def test_spectrograms_are_those_that_whisper_was_trained_on() -> None:
    rng = np.random.default_rng(0)
    sounds = [tone(440, 1.3), rng.normal(size=20_000).astype(np.float32) * 0.1, tone(3000, 0.01)]
    theirs = WhisperFeatureExtractor()(  # type: ignore[no-untyped-call]
        sounds, sampling_rate=RATE, return_tensors="pt"
    ).input_features
    torch.testing.assert_close(hear(sounds, 30, "x").frames, theirs, atol=1e-4, rtol=0)


def test_the_loudest_band_is_where_the_tone_is() -> None:
    for hertz in (200, 1000, 4000):
        frames = hear([tone(hertz, 1.0)], 1, "x").frames[0]
        centres = (mel_bands() * torch.linspace(0, RATE / 2, 201)).sum(1) / mel_bands().sum(1)
        assert float(centres[frames[:, 50].argmax()]) == pytest.approx(hertz, rel=0.1)


def test_lengths_are_in_frames_of_ten_milliseconds() -> None:
    assert hear([tone(440, 0.5), tone(440, 0.001), tone(440, 9.0)], 2, "x").lengths.tolist() == [50, 1, 200]


def test_padding_counts_neither_in_means_nor_as_states() -> None:
    states = torch.tensor([[[1.0], [3.0], [5.0], [7.0], [99.0]], [[2.0], [99.0], [99.0], [99.0], [99.0]]])
    means, mask = pooled(states, torch.tensor([3, 1]), 2)
    assert means[mask].flatten().tolist() == [2.0, 5.0, 2.0]
    assert mask.tolist() == [[True, True], [True, False]]


def test_without_pooling_states_stay_what_they_are() -> None:
    states = torch.randn(2, 5, 3)
    means, mask = pooled(states, torch.tensor([5, 2]), 1)
    assert torch.equal(means[mask], torch.cat([states[0], states[1, :2]]))


def test_a_state_says_when_it_is() -> None:
    early, late = tone(440, 0.1), np.concatenate([np.zeros(RATE * 4, np.float32), tone(440, 0.1)])
    encoded = LogMel(seconds=5, position=True).encode([early, late])
    where = encoded.states[..., 80:]
    assert (encoded.states.shape[-1], encoded.mask.sum(1).tolist()) == (87, [1, 41])
    assert not torch.allclose(where[1, 0], where[1, 40])
    assert torch.equal(where[0, 0], where[1, 0])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("speech.wav", "not str"),
        (np.zeros((2, 8), np.float32), r"not an array of shape \(2, 8\)"),
        (np.array(["a"]), "not an array of shape"),
        (np.zeros(0, np.float32), "at least one sample"),
        (np.array([0.0, np.nan], np.float32), "all of them finite"),
        (np.array([0, -(2**15)], np.int16), "from -1 to 1, not integers of up to 32768: divide .* by 32768"),
        (np.array([0, 1], np.int16), "not integers of up to 1: divide"),
        (np.array([0.0, -7.0], np.float32), "not integers of up to 7: divide"),
        (np.array([0.5, 101.5], np.float32), "not numbers of up to 101.5: divide"),
        (np.concatenate([np.zeros(31 * RATE), [300.0]]), "not integers of up to 300: divide"),
    ],
)
def test_what_is_no_sound_is_refused(given: object, said: str) -> None:
    with pytest.raises(DataError, match=f"LogMel reads sounds.*{said}"):
        LogMel().encode([given])  # type: ignore[list-item]


def test_samples_a_little_out_of_range_are_heard() -> None:
    assert LogMel().encode([np.array([0.5, -1.0, 1.25], np.float32), np.array([0.0, 1.0], np.float32)]).mask.any()


@pytest.mark.parametrize("options", [{"seconds": 0}, {"seconds": 31}, {"pool": 0}, {"pool": 3001}])
def test_sizes_out_of_range_are_refused(options: dict[str, Any]) -> None:
    [(key, value)] = options.items()
    with pytest.raises(ConfigError, match=f"encoder.{key}={value}: "):
        LogMel(**options)


def test_generated_pieces_have_the_rate_that_is_heard() -> None:
    assert SAMPLE_RATE == RATE
