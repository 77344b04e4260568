"""Sound files of several kinds, and what is refused."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
import soundfile

from lockdec.data import sounds
from lockdec.data.sounds import open_sound
from lockdec.errors import DataError


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0) -> Any:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def written(samples: Any, rate: int, kind: str = "WAV", endian: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, endian=endian)
    return file.getvalue()


def frequency(samples: Any, rate: int) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples))) / len(samples) * rate)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_a_tone_stays_what_it_is(kind: str, rate: int) -> None:
    found = open_sound(written(tone(rate), rate, kind), "a")
    assert found.dtype == np.float32
    assert len(found) == pytest.approx(16_000, rel=0.1)  # MP3 adds silence
    assert frequency(found, 16_000) == pytest.approx(440, abs=2)
    assert np.abs(found[4_000:12_000]).max() == pytest.approx(0.5, abs=0.05)


def test_channels_are_averaged() -> None:
    left, right = tone(16_000), tone(16_000, hertz=880.0)
    found = open_sound(written(np.stack([left, right], axis=1), 16_000), "a")
    np.testing.assert_allclose(found, (left + right) / 2, atol=1e-3)


def test_without_resampling_samples_are_those_of_the_file() -> None:
    samples = tone(22_050)
    np.testing.assert_allclose(open_sound(written(samples, 22_050), "a", rate=22_050), samples, atol=1e-4)


def test_a_wav_file_that_was_cut_is_refused_and_one_of_unknown_length_is_read() -> None:
    whole = written(tone(16_000), 16_000)
    for kept in (len(whole) // 2, len(whole) - 10):
        with pytest.raises(DataError, match=rf"^a: cut off; its last {len(whole) - kept:,} bytes are missing$"):
            open_sound(whole[:kept], "a")
    with pytest.raises(DataError, match=r"^a: cut off"):
        open_sound(written(tone(16_000), 16_000, endian="BIG")[:-10], "a")
    at = whole.index(b"data") + 4
    for length in (0xFFFFFFFF, 0x7FFFF024, 0x80000024):  # ffmpeg, sox and espeak, arecord
        streamed = whole[:4] + length.to_bytes(4, "little") + whole[8:]
        assert len(open_sound(streamed, "a")) == 16_000
        both = streamed[:at] + (length - 36).to_bytes(4, "little") + streamed[at + 4 :]
        assert len(open_sound(both, "a")) == 16_000


def pages(ogg: bytes, stream: int) -> list[bytes]:
    """The pages of an Ogg file, as those of the stream of this number."""
    starts = [found.start() for found in re.finditer(b"OggS", ogg)]
    numbered = []
    for start, end in zip(starts, [*starts[1:], len(ogg)], strict=True):
        page = ogg[start : start + 14] + stream.to_bytes(4, "little") + ogg[start + 18 : start + 22]
        rest = ogg[start + 26 : end]
        remainder = 0
        for byte in page + bytes(4) + rest:  # the checksum, as RFC 3533 defines it
            remainder ^= byte << 24
            for _ in range(8):
                remainder = (remainder << 1) ^ (0x104C11DB7 if remainder & 0x80000000 else 0)
        numbered.append(page + remainder.to_bytes(4, "little") + rest)
    return numbered


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_an_mp3_file_of_fewer_samples_than_it_counts_is_refused(rate: int) -> None:
    whole = written(tone(rate, 3.0), rate, "MP3")
    half = len(whole) // 2
    for spoiled in (
        whole[:half],
        whole[:half] + whole[half + 1_500 :],
        whole[:half] + b"\xff" * 900 + whole[half + 900 :],
    ):
        with pytest.raises(DataError, match=rf"^a: (cut off or damaged; [\d,]+ of its {3 * rate:,} samples are|not a)"):
            open_sound(spoiled, "a")
    titled = b"ID3\3\0\0\0\0\x40\0" + bytes(8_192) + whole + b"TAG" + bytes(125)
    assert len(open_sound(titled, "a")) == len(open_sound(whole, "a")) == 48_000
    assert len(open_sound(whole[whole.index(whole[:2], 4) :], "a")) > 0, "without a count nothing says what is missing"


@pytest.mark.parametrize("coding", ["VORBIS", "OPUS"])
def test_an_ogg_file_whose_last_page_does_not_end_it_is_refused(coding: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).uniform(-0.3, 0.3, 48_000), 16_000, format="OGG", subtype=coding)
    whole = file.getvalue()
    first, second = pages(whole, 1), pages(whole, 2)
    for cut in (whole[: len(whole) // 2], whole[:-10], b"".join(first[:-1])):
        with pytest.raises(DataError, match=r"^a: cut off; the page that ends it is missing$"):
            open_sound(cut, "a")
    with pytest.raises(DataError, match=r"^a: cut off or damaged; [\d,]+ of its 48,000 samples are missing$"):
        open_sound(b"".join([*first[:3], *first[4:]]), "a")
    together = b"".join(page for both in zip(first, second, strict=True) for page in both)
    for several in (b"".join([*first, *second]), together, whole + bytes(10)):
        np.testing.assert_array_equal(open_sound(several, "a"), open_sound(whole, "a"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"not a sound that can be read \(Format not recognised; WAV, FLAC, Ogg and MP3 are read\)$"),
        (b"RIFF....WAVE", r"not a sound that can be read \([^<>]*\)$"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), r"not a sound that can be read \([^<>]*\)$"),
        (written(np.zeros(0), 16_000), "a sound without samples"),
        (written(np.zeros(1), 48_000), "too short: 1 of 48000 samples a second are none of 16000"),
        (written(np.zeros(4), 8_000, "AIFF"), "AIFF, and not one of WAV, FLAC, OGG, MP3"),
    ],
)
def test_what_is_no_sound_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(DataError, match=f"a.wav: {said}"):
        open_sound(content, "a.wav")


def test_too_long_a_sound_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "LONGEST", 2)
    assert len(open_sound(written(tone(16_000, 2.0), 16_000), "a")) == 32_000
    monkeypatch.setattr(soundfile.SoundFile, "read", None)  # is not reached
    with pytest.raises(DataError, match="a: 3 s; sounds of at most 2 s are read"):
        open_sound(written(tone(16_000, 3.0), 16_000), "a")


def test_a_small_file_of_many_silent_channels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A FLAC of 1.1 MB can hold 200 s of 8 channels at 655,350 Hz, which take 4.2 GB as numbers."""
    monkeypatch.setattr(sounds, "MOST_SAMPLES", 8 * 999)
    file = io.BytesIO()
    soundfile.write(file, np.zeros((1_000, 8), np.float32), 16_000, format="FLAC")
    with pytest.raises(DataError, match="x: 8 channels of 1,000 samples; at most 7,992 are read together"):
        sounds.open_sound(file.getvalue(), "x")


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (np.nan, "it has samples that are not finite"),
        (np.inf, "it has samples that are not finite"),
        (-32_768.0, "samples of up to 32768; they have to be from -1 to 1"),
    ],
)
@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_samples_that_are_no_loudness_are_refused(sample: float, said: str, rate: int) -> None:
    file = io.BytesIO()
    samples = np.array([0.0, 1.5] * 99 + [sample], np.float32)
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    with pytest.raises(DataError, match=f"a: {said}"):
        open_sound(file.getvalue(), "a")
    soundfile.write(file := io.BytesIO(), samples[:-1], rate, format="WAV", subtype="FLOAT")
    assert open_sound(file.getvalue(), "a").max() > 1, "a little more than 1 is no mistake"
