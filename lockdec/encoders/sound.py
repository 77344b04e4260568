"""What encoders of sound share, log-mel spectrograms and the pooling of frames; and such spectrograms as an encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lockdec.data.captions import Input, Modality
from lockdec.data.sounds import LOUDEST, RATE
from lockdec.encoders.contract import Encoder
from lockdec.errors import ConfigError, DataError
from lockdec.transformer.encoded import Encoded

WINDOW, HOP = 400, 160  # samples
FRAMES = RATE // HOP  # a second
BANDS = 80
LONGEST = 30  # seconds
PERIODS = (1.0, 4.0, 16.0)  # seconds, of the positions


class Heard(NamedTuple):
    """Spectrograms of sounds that are padded to the same length with silence.

    Attributes:
        frames: one spectrogram for each sound.
        lengths: how many frames of each are not padding, at least 1.
    """

    frames: Float[Tensor, "b bands t"]
    lengths: Int[Tensor, " b"]


def hear(inputs: Sequence[Input], seconds: int, reader: str) -> Heard:
    """Log-mel spectrograms as Whisper reads them (Radford et al. 2022): 80 bands, 100 frames a second, about -1 to 1.5.

    Args:
        inputs: samples from -1 to 1 at 16 kHz, of shape (samples,).
        seconds: to which every sound is cut or padded.
        reader: the name of the encoder, for errors.

    Raises:
        DataError: an input is no sound, is empty, or has samples that are not finite or far from -1 to 1.
    """
    sounds, lengths = torch.zeros(len(inputs), seconds * RATE), []
    for row, given in enumerate(inputs):
        if not isinstance(given, np.ndarray) or given.ndim != 1 or given.dtype.kind not in "fiu":
            kind = f"an array of shape {given.shape}" if isinstance(given, np.ndarray) else type(given).__name__
            raise DataError(f"{reader} reads sounds, arrays of shape (samples,) at {RATE} Hz, not {kind}")
        heard = given[: seconds * RATE].astype(np.float32)
        if not len(heard) or not np.isfinite(heard).all():
            raise DataError(f"{reader} reads sounds of at least one sample, all of them finite")
        if (loudest := max(float(given.max()), -float(given.min()))) > LOUDEST or _integers(given, loudest):
            raise DataError(
                f"{reader} reads sounds whose samples are floating-point numbers from -1 to 1, not "
                f"{'integers' if _integers(given, loudest) else 'numbers'} of up to {loudest:g}: "
                "divide samples of 16 bits by 32768"
            )
        sounds[row, : len(heard)] = torch.from_numpy(heard)
        lengths.append(math.ceil(len(heard) / HOP))
    spectrum = torch.stft(sounds, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)
    power = spectrum[..., :-1].abs().square()  # the last frame lies beyond the end
    loud = (mel_bands() @ power).clamp(min=1e-10).log10()
    return Heard((loud.maximum(loud.amax(dim=(1, 2), keepdim=True) - 8) + 4) / 4, torch.tensor(lengths))


def _integers(samples: NDArray[Any], loudest: float) -> bool:
    """Whether samples are integers, or were: they are read from files as floating-point numbers."""
    return samples.dtype.kind in "iu" or (loudest > 1 and bool((samples == np.round(samples)).all()))


@cache
def mel_bands() -> Float[Tensor, "bands frequencies"]:
    """Triangles over frequencies that are equally wide in mel and of equal area (Slaney 1998)."""

    def hertz(mel: Tensor) -> Tensor:
        return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * math.log(6.4) / 27))

    highest = 15 + 27 * math.log(RATE / 2 / 1000) / math.log(6.4)
    corners = hertz(torch.linspace(0, highest, BANDS + 2, dtype=torch.float64))
    frequencies = torch.linspace(0, RATE / 2, WINDOW // 2 + 1, dtype=torch.float64)
    below, centre, above = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (frequencies - below) / (centre - below), (above - frequencies) / (above - centre)
    return (rising.minimum(falling).clamp(min=0) * 2 / (above - below)).float()


def pooled(
    states: Float[Tensor, "b t dim"], lengths: Int[Tensor, " b"], pool: int
) -> tuple[Float[Tensor, "b n dim"], Bool[Tensor, "b n"]]:
    """The means of each `pool` states, padding left out, and which of these are not padding alone."""
    longest = int(lengths.max())
    real = torch.arange(longest, device=states.device) < lengths.to(states.device)[:, None]
    states = states[:, :longest] * real[..., None]
    missing = -longest % pool
    states, real = F.pad(states, (0, 0, 0, missing)), F.pad(real, (0, missing))
    counts = real.view(len(real), -1, pool).sum(2)
    return states.view(len(real), -1, pool, states.shape[2]).sum(2) / counts.clamp(min=1)[..., None], counts > 0


def require_pool(pool: int, seconds: int) -> None:
    """Raise ConfigError where `encoder.pool` or `encoder.seconds` is out of range."""
    if not 1 <= seconds <= LONGEST:
        raise ConfigError(f"encoder.seconds={seconds}: from 1 to {LONGEST}")
    if not 1 <= pool <= LONGEST * RATE // HOP:
        raise ConfigError(f"encoder.pool={pool}: from 1 to {LONGEST * RATE // HOP} frames in a state")


class LogMel(Encoder):
    """The log-mel spectrogram itself: an encoder without weights, which shows what a pretrained one adds.

    Args:
        seconds: how much of each sound is heard, at most 30.
        pool: frames of 10 ms in a state.
        position: whether to append when the state is: its time, and sine and cosine of periods of 1, 4 and 16 s.

    Raises:
        ConfigError: `encoder.*` is out of range.
    """

    modality: Modality = "array"
    rate = RATE
    seconds: int

    def __init__(self, seconds: int = LONGEST, pool: int = 10, position: bool = True) -> None:
        super().__init__()
        require_pool(pool, seconds)
        self.seconds, self.pool, self.position = seconds, pool, position
        self.groups = (BANDS, 1 + 2 * len(PERIODS)) if position else (BANDS,)
        self.dim = sum(self.groups)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"seconds": self.seconds, "pool": self.pool, "position": self.position, "version": 1}

    def preprocess(self, inputs: Sequence[Input]) -> Heard:
        """Spectrograms; DataError if an input is no sound."""
        return hear(inputs, self.seconds, type(self).__name__)

    def forward(self, batch: Heard) -> Encoded:
        """One state for each `pool` frames."""
        states, mask = pooled(batch.frames.transpose(1, 2), batch.lengths, self.pool)
        if self.position:
            time = torch.arange(states.shape[1], device=states.device) * self.pool / FRAMES
            waves = [wave(2 * math.pi * time / period) for period in PERIODS for wave in (torch.sin, torch.cos)]
            where = torch.stack([time / LONGEST, *waves], dim=-1).expand(len(states), -1, -1)
            states = torch.cat([states, where], dim=-1)
        return Encoded(states, mask)
