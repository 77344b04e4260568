"""Sound files: WAV, FLAC, Ogg and MP3 to samples. Needs no torch."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lockdec.errors import ConfigError, DataError
from lockdec.store.reading import opened

FORMATS = ("WAV", "FLAC", "OGG", "MP3")
ENDINGS = (".wav", ".flac", ".ogg", ".oga", ".mp3")
RATE = 16_000  # samples a second that most encoders of sound read
LARGEST = 2**27  # bytes of a file
LONGEST = 300  # seconds
LOUDEST = 100  # of a sample: what is written as floating-point numbers from -1 to 1 may exceed 1 somewhat
MOST_SAMPLES = LONGEST * 192_000 * 2  # of all channels together: a small file can hold many that are alike
_FEW = 2 * 1152  # samples: some count a frame of MP3 more than there are
_XING = re.compile(rb"(Xing|Info)\0\0\0[\1\3\5\7\x09\x0b\x0d\x0f]")  # the lowest flag says that frames are counted


def open_sound(source: Path | bytes, name: str, rate: int = RATE) -> NDArray[np.float32]:
    """The samples of a sound, from -1 to 1, of shape (samples,): the mean of its channels.

    Args:
        source: the file, or its content.
        name: its name in errors.
        rate: samples a second of the result.

    Raises:
        DataError: it is damaged, cut off, empty, of another kind or too long.
        ConfigError: the packages that read sounds are missing.
    """
    try:
        import soundfile
        import soxr
    except (ImportError, OSError) as error:  # soundfile raises OSError where its library is missing
        reason = " ".join(str(error).split())
        raise ConfigError(f"sounds are read by soundfile and soxr ({reason}): pip install 'lockdec[sound]'") from error
    content = _content(source, name) if isinstance(source, Path) else source
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            if file.format not in FORMATS and not file.format.startswith("WAV"):
                raise DataError(f"{name}: {file.format}, and not one of {', '.join(FORMATS)}")
            if missing := _missing(content):
                raise DataError(f"{name}: cut off; its last {missing:,} bytes are missing")
            if file.format == "OGG" and not _ends(content):
                raise DataError(f"{name}: cut off; the page that ends it is missing")
            own, most = file.samplerate, LONGEST * file.samplerate
            if file.frames > most:
                raise DataError(f"{name}: {file.frames / own:.0f} s; sounds of at most {LONGEST} s are read")
            if file.frames * file.channels > MOST_SAMPLES:
                raise DataError(f"{name}: {file.channels} channels of {file.frames:,} samples; at most "
                                f"{MOST_SAMPLES:,} are read together")  # fmt: skip
            samples = file.read(min(most, MOST_SAMPLES // file.channels) + 1, dtype="float32", always_2d=True).mean(
                axis=1
            )
            lacking = file.frames - len(samples)
            if lacking > _FEW and (file.format == "OGG" or _counted(content)):
                raise DataError(f"{name}: cut off or damaged; {lacking:,} of its {file.frames:,} samples are missing")
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        # The whole text of an error of libsndfile names the object in memory that the content was read from.
        reason = " ".join(str(getattr(error, "error_string", error)).split()).removeprefix("Error : ").rstrip(".")
        kinds = "WAV, FLAC, Ogg and MP3 are read"
        raise DataError(f"{name}: not a sound that can be read ({reason or 'damaged'}; {kinds})") from error
    if len(samples) > most:
        raise DataError(f"{name}: more than {LONGEST} s; sounds of at most {LONGEST} s are read")
    if not len(samples):
        raise DataError(f"{name}: a sound without samples")
    if not np.isfinite(samples).all():
        raise DataError(f"{name}: it has samples that are not finite")
    if (loudest := float(np.abs(samples).max())) > LOUDEST:
        raise DataError(f"{name}: samples of up to {loudest:.6g}; they have to be from -1 to 1")
    found: NDArray[np.float32] = soxr.resample(samples, own, rate) if own != rate else samples
    if not len(found):
        raise DataError(f"{name}: too short: {len(samples)} of {own} samples a second are none of {rate}")
    return found


def _missing(content: bytes) -> int:
    """How many bytes a WAV file lacks at its end, which libsndfile reads as a shorter sound."""
    if content[:4] not in (b"RIFF", b"RIFX"):
        return 0
    length = int.from_bytes(content[4:8], "big" if content[:4] == b"RIFX" else "little")
    streamed = not length or length > 2**31 - 2**16  # who wrote it did not know how long it would become; sox says 2 GB
    lacking = 8 + length - len(content)
    return lacking if not streamed and lacking > 8 else 0  # some count the header, too


def _ends(content: bytes) -> bool:
    """Whether the last page of an Ogg file is whole and says that a stream ends with it."""
    page = content[content.rfind(b"OggS") :]
    if len(page) < 27:
        return False
    parts = page[27 : 27 + page[26]]
    return bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(parts)


def _counted(content: bytes) -> bool:
    """Whether an MP3 file says how long it is; otherwise libmpg123 guesses that."""
    tag = 10 + sum((byte & 127) << shift for byte, shift in zip(content[6:10], (21, 14, 7, 0), strict=False))
    first = tag if content.startswith(b"ID3") else 0
    return _XING.search(content, first, first + 4096) is not None


def _content(path: Path, name: str) -> bytes:
    try:
        with opened(path) as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror})") from error
    if len(content) > LARGEST:
        raise DataError(f"{name}: sounds of at most {LARGEST >> 20} MiB are read")
    return content
