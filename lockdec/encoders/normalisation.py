"""Brings encoder states to a common scale: fitted on training rows, stored, and applied to new inputs alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lockdec.errors import ConfigError, StoreError
from lockdec.store.tensors import load_tensors, save_tensors
from lockdec.transformer.encoded import present

Kind: TypeAlias = Literal["none", "standardise", "whiten"]

# A channel that hardly varies in training carries no information; divided by its tiny deviation it would be noise.
_LEAST_DEVIATION = 0.01  # of the root mean square deviation over channels
_LEAST_VARIANCE = 0.01  # of the variance of a standardised channel; added to every principal variance


def kinds_of(kind: str | Sequence[str], groups: int) -> tuple[str, ...]:
    """The kind of normalisation of each group of channels; a single word applies to all groups.

    Raises:
        ConfigError: a kind is unknown, or there is not one for each group.
    """
    kinds = (kind,) * groups if isinstance(kind, str) else tuple(kind)
    for name in kinds:
        if name not in get_args(Kind):
            allowed = ", ".join(get_args(Kind))
            raise ConfigError(f"stages.attach.normalise={kind}: {name} is not one of: {allowed}")
    if len(kinds) != groups:
        raise ConfigError(
            f"stages.attach.normalise={list(kinds)}: the states have {groups} groups of channels, "
            f"so give {groups} kinds, or one word for all of them"
        )
    return kinds


@dataclass(frozen=True)
class Normalisation:
    """`(states - mean) * scale`, or `(states - mean) @ rotation` if channels are decorrelated.

    Attributes:
        mean: per channel; None leaves states as they are.
        scale: one over the standard deviation, per channel.
        rotation: block-diagonal over the groups of channels: the symmetric matrix that whitens standardised channels
            ("ZCA-cor", Kessy et al. 2018, table 1), slightly regularised.
        parts: of several encoders side by side, the channels of each and what normalises them; then all else is None.
    """

    mean: Float[Tensor, " d"] | None = None
    scale: Float[Tensor, " d"] | None = None
    rotation: Float[Tensor, "d d"] | None = None
    parts: tuple[tuple[int, Normalisation], ...] = ()

    @classmethod
    def fit_apart(
        cls,
        kind: str | Sequence[str],
        chunks: Callable[[], Iterable[Float[Tensor, "_ d"]]],
        groups: Sequence[int],
        apart: Sequence[int],
    ) -> Normalisation:
        """Fit on the training states of several encoders side by side, each on its own states alone.

        Args:
            kind, groups: as of `fit`.
            chunks: begins anew with every call.
            apart: how many channels each encoder has.
        """
        kinds, fitted, start, group = kinds_of(kind, len(groups)), list[tuple[int, Normalisation]](), 0, 0
        for width in apart:
            own, last = slice(start, start + width), group
            while sum(groups[group:last]) < width:
                last += 1
            states = (chunk[:, own][present(chunk, apart)[:, start]] for chunk in chunks())
            fitted.append((width, cls.fit(kinds[group:last], states, groups[group:last])))
            start, group = start + width, last
        return cls(parts=tuple(fitted))

    @property
    def apart(self) -> tuple[int, ...]:
        """The channels of each of several encoders side by side; empty for a single encoder."""
        return tuple(width for width, _ in self.parts)

    @property
    def dim(self) -> int | None:
        """How many channels it was fitted on; None where it leaves all as they are."""
        if self.parts:
            return sum(self.apart)
        return None if self.mean is None else len(self.mean)

    @classmethod
    def fit(
        cls,
        kind: str | Sequence[str],
        chunks: Iterable[Float[Tensor, "_ d"]],
        groups: Sequence[int] | None = None,
    ) -> Normalisation:
        """Fit on training states.

        Args:
            kind: "none", "standardise" (mean 0, standard deviation 1) or "whiten" (the same, and the channels of a
                group are uncorrelated); either one for all groups or one for each.
            chunks: the states of all training inputs, a few at a time.
            groups: how many channels each group has, in order; None for a single group.

        Raises:
            ConfigError: a kind is unknown, or there is not one for each group.
        """
        kinds = kinds_of(kind, len(groups) if groups else 1)
        if set(kinds) == {"none"}:
            return cls()
        # Moments about the mean of the first chunk, in float64: no second pass and no cancellation.
        count, total, centre = 0, torch.zeros(()).double(), torch.zeros(())
        squares: list[Tensor] = [torch.zeros(()).double()] * len(kinds)  # of each group; all products if it is whitened
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
        if self.parts:
            pieces = torch.split(states, list(self.apart), -1)
            several = [part(piece) for (_, part), piece in zip(self.parts, pieces, strict=True)]
            return torch.cat(several, dim=-1) * present(states, self.apart)
        if self.mean is None:
            return states
        moved = states - self.mean
        if self.scale is not None:
            return moved * self.scale
        return moved if self.rotation is None else moved @ self.rotation

    def alike(self, other: Normalisation) -> bool:
        """Whether the two are the same up to rounding: states depend on the batch that they were encoded in by that."""
        own, others = self._tensors(), other._tensors()
        return own.keys() == others.keys() and all(
            own[name].shape == others[name].shape and torch.allclose(own[name], others[name], rtol=1e-4, atol=1e-6)
            for name in own
        )

    def save(self, path: Path) -> None:
        """Write the fitted tensors as safetensors."""
        save_tensors(self._tensors(), path)

    def _tensors(self) -> dict[str, Tensor]:
        fitted = {"mean": self.mean, "scale": self.scale, "rotation": self.rotation}
        tensors = {name: value for name, value in fitted.items() if value is not None}
        for number, (_, part) in enumerate(self.parts):
            tensors |= {f"{number}.{name}": value for name, value in part._tensors().items()}
        return tensors | ({"apart": torch.tensor(self.apart)} if self.parts else {})

    @classmethod
    def load(cls, path: Path) -> Normalisation:
        """Read what `save` wrote.

        Raises:
            StoreError: the file cannot be read.
        """
        tensors = load_tensors(path)

        def fitted(found: dict[str, Tensor]) -> Normalisation:
            if odd := sorted(found.keys() - {"mean", "scale", "rotation"}):
                raise ValueError(f"{odd[0]} is not known")
            return cls(found.get("mean"), found.get("scale"), found.get("rotation"))

        try:
            if (widths := tensors.pop("apart", None)) is None:
                return fitted(tensors)
            parts: list[dict[str, Tensor]] = [{} for _ in widths.tolist()]
            for name, value in tensors.items():
                number, _, own = name.partition(".")
                parts[int(number)][own] = value
            return cls(parts=tuple((int(width), fitted(part)) for width, part in zip(widths, parts, strict=True)))
        except (ValueError, IndexError) as error:
            raise StoreError(f"{path}: not a stored normalisation ({error})") from error


def _zca(correlation: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    variances, axes = torch.linalg.eigh(correlation)
    whitening: Tensor = (axes * (variances.clamp(min=0) + _LEAST_VARIANCE).rsqrt()) @ axes.T
    return whitening
