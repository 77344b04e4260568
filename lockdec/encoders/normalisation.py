"""How encoder states come to a common scale: fitted on training rows, stored, the same for new inputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from lockdec.errors import ConfigError, StoreError

Kind: TypeAlias = Literal["none", "standardise", "whiten"]

# A channel that hardly moves in training says nothing: divided by its tiny deviation it would be all noise.
_LEAST_DEVIATION = 0.01  # of the root mean square deviation over channels
_LEAST_VARIANCE = 0.01  # of the mean variance, added to every principal variance


def check_kind(kind: str) -> None:
    """Raise ConfigError where there is no such kind of normalisation."""
    if kind not in get_args(Kind):
        allowed = ", ".join(get_args(Kind))
        raise ConfigError(f"stages.attach.normalise={kind} is not one of: {allowed}")


@dataclass(frozen=True)
class Normalisation:
    """`(states - mean) * scale`, or `(states - mean) @ rotation` where channels are decorrelated.

    Attributes:
        mean: per channel; None leaves states as they are.
        scale: one over the standard deviation, per channel.
        rotation: the symmetric whitening matrix ("ZCA", Kessy et al. 2018, table 1), slightly shrunk.
    """

    mean: Float[Tensor, " d"] | None = None
    scale: Float[Tensor, " d"] | None = None
    rotation: Float[Tensor, "d d"] | None = None

    @classmethod
    def fit(cls, kind: str, chunks: Iterable[Float[Tensor, "_ d"]]) -> Normalisation:
        """Fit on training states.

        Args:
            kind: "none", "standardise" (mean 0, deviation 1) or "whiten" (and channels uncorrelated).
            chunks: the states of every training input, a few at a time.

        Raises:
            ConfigError: the kind is not known.
        """
        check_kind(kind)
        if kind == "none":
            return cls()
        # Moments about the first chunk's mean, in float64: no second pass, and no cancellation.
        count, total, squares, centre = 0, torch.zeros(()).double(), torch.zeros(()).double(), torch.zeros(())
        for chunk in chunks:
            if not count:
                centre = chunk.double().mean(0)
            moved = chunk.double() - centre
            count, total = count + len(chunk), total + moved.sum(0)
            squares = squares + (moved.T @ moved if kind == "whiten" else moved.square().sum(0))
        drift = total / count
        mean = (centre + drift).float()
        if kind == "standardise":
            deviation = (squares / count - drift.square()).clamp(min=0).sqrt()
            least = _LEAST_DEVIATION * deviation.square().mean().sqrt()
            return cls(mean, scale=(1 / deviation.clamp(min=max(float(least), 1e-12))).float())
        covariance = squares / count - torch.outer(drift, drift)
        least = _LEAST_VARIANCE * covariance.diagonal().mean().clamp(min=1e-12)
        variances, axes = torch.linalg.eigh(covariance)
        return cls(mean, rotation=(axes * (variances.clamp(min=0) + least).rsqrt() @ axes.T).float())

    def __call__(self, states: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Normalised states."""
        if self.mean is None:
            return states
        moved = states - self.mean
        if self.scale is not None:
            return moved * self.scale
        return moved if self.rotation is None else moved @ self.rotation

    def save(self, path: Path) -> None:
        """Write the fitted numbers as safetensors."""
        fitted = {"mean": self.mean, "scale": self.scale, "rotation": self.rotation}
        save_file({name: value.contiguous() for name, value in fitted.items() if value is not None}, path)

    @classmethod
    def load(cls, path: Path) -> Normalisation:
        """Read what `save` wrote.

        Raises:
            StoreError: the file cannot be read.
        """
        try:
            return cls(**load_file(path))
        except Exception as error:  # safetensors raises an exception of its own that it does not export
            raise StoreError(f"{path}: not a stored normalisation ({error})") from error
