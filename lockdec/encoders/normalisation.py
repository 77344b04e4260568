"""How encoder states come to a common scale: fitted on training rows, stored, the same for new inputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lockdec.errors import ConfigError, StoreError
from lockdec.store.tensors import load_tensors, save_tensors

Kind: TypeAlias = Literal["none", "standardise", "whiten"]

# A channel that hardly moves in training says nothing: divided by its tiny deviation it would be all noise.
_LEAST_DEVIATION = 0.01  # of the root mean square deviation over channels
_LEAST_VARIANCE = 0.01  # of a standardised channel's, added to every principal variance


def kinds_of(kind: str | Sequence[str], groups: int) -> tuple[str, ...]:
    """The kind of normalisation of each group of channels; one word is for all of them.

    Raises:
        ConfigError: a kind is not known, or there are not as many as groups.
    """
    kinds = (kind,) * groups if isinstance(kind, str) else tuple(kind)
    for name in kinds:
        if name not in get_args(Kind):
            allowed = ", ".join(get_args(Kind))
            raise ConfigError(f"stages.attach.normalise={kind}: {name} is not one of: {allowed}")
    if len(kinds) != groups:
        raise ConfigError(
            f"stages.attach.normalise={list(kinds)}: the states have {groups} groups of channels, "
            f"so {groups} kinds, or one word for all of them"
        )
    return kinds


@dataclass(frozen=True)
class Normalisation:
    """`(states - mean) * scale`, or `(states - mean) @ rotation` where channels are decorrelated.

    Attributes:
        mean: per channel; None leaves states as they are.
        scale: one over the standard deviation, per channel.
        rotation: block by block over the groups of channels, the symmetric matrix that whitens standardised
            channels ("ZCA-cor", Kessy et al. 2018, table 1), slightly shrunk.
    """

    mean: Float[Tensor, " d"] | None = None
    scale: Float[Tensor, " d"] | None = None
    rotation: Float[Tensor, "d d"] | None = None

    @classmethod
    def fit(
        cls,
        kind: str | Sequence[str],
        chunks: Iterable[Float[Tensor, "_ d"]],
        groups: Sequence[int] | None = None,
    ) -> Normalisation:
        """Fit on training states.

        Args:
            kind: "none", "standardise" (mean 0, deviation 1) or "whiten" (and channels uncorrelated within their
                group), for all groups or one for each.
            chunks: the states of every training input, a few at a time.
            groups: how many channels each group has, in order; None for one group.

        Raises:
            ConfigError: a kind is not known, or there are not as many as groups.
        """
        kinds = kinds_of(kind, len(groups) if groups else 1)
        if set(kinds) == {"none"}:
            return cls()
        # Moments about the first chunk's mean, in float64: no second pass, and no cancellation.
        count, total, centre = 0, torch.zeros(()).double(), torch.zeros(())
        squares: list[Tensor] = [torch.zeros(()).double()] * len(kinds)  # of each group; products where it is whitened
        for chunk in chunks:
            if not count:
                centre = chunk.double().mean(0)
            moved = chunk.double() - centre
            count, total = count + len(chunk), total + moved.sum(0)
            parts = torch.split(moved, list(groups or [moved.shape[1]]), dim=1)
            for index, (name, part) in enumerate(zip(kinds, parts, strict=True)):
                squares[index] = squares[index] + (part.T @ part if name == "whiten" else part.square().sum(0))
        drift = total / count
        mean = centre + drift
        scale = torch.ones_like(mean)
        rotation = torch.zeros(len(mean), len(mean)).double() if "whiten" in kinds else None
        start = 0
        for name, square in zip(kinds, squares, strict=True):
            group, start = slice(start, start + len(square)), start + len(square)
            if name == "whiten":
                covariance = square / count - torch.outer(drift[group], drift[group])
                variance = covariance.diagonal()
            else:
                covariance, variance = None, square / count - drift[group].square()
            if name == "none":
                mean[group] = 0
            else:
                deviation = variance.clamp(min=0).sqrt()
                least = _LEAST_DEVIATION * deviation.square().mean().sqrt()
                scale[group] = 1 / deviation.clamp(min=max(float(least), 1e-12))
            if rotation is not None:
                block = torch.diag(scale[group])
                rotation[group, group] = block if covariance is None else block @ _zca(block @ covariance @ block)
        if rotation is not None:
            return cls(mean.float(), rotation=rotation.float())
        return cls(mean.float(), scale=scale.float())

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
        save_tensors({name: value for name, value in fitted.items() if value is not None}, path)

    @classmethod
    def load(cls, path: Path) -> Normalisation:
        """Read what `save` wrote.

        Raises:
            StoreError: the file cannot be read.
        """
        try:
            return cls(**load_tensors(path))
        except TypeError as error:
            raise StoreError(f"{path}: not a stored normalisation ({error})") from error


def _zca(correlation: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    variances, axes = torch.linalg.eigh(correlation)
    whitening: Tensor = (axes * (variances.clamp(min=0) + _LEAST_VARIANCE).rsqrt()) @ axes.T
    return whitening
