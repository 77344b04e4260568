"""Pretrain an autoencoder on the pictures of the training split; captions are not read."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lockdec.config.schema import TrainerConfig
from lockdec.console import console
from lockdec.data.captions import CaptionSet
from lockdec.encoders.autoencoder import Autoencoder, from_bytes, save_autoencoder
from lockdec.encoders.vae import ACTIVE_VARIANCE, VAE
from lockdec.encoders.vqvae import VQVAE
from lockdec.errors import ConfigError
from lockdec.modules.autoencoding import Autoencoding, VariationalAutoencoding, VectorQuantisedAutoencoding
from lockdec.modules.configuration import PretrainAutoencoderConfig, PretrainVAEConfig, PretrainVQVAEConfig
from lockdec.runtime.devices import place_on
from lockdec.stages.stage import Stage, Work
from lockdec.training.fit import fit
from lockdec.training.pixels import PIXELS, PixelDataModule, batch_of, write_pixels

RECONSTRUCTIONS = "reconstructions.png"
_SHOWN = 12  # pictures of the validation split, each above what became of it
_CHUNK = 256  # pictures looked at together after training


@dataclass(frozen=True, kw_only=True)
class PretrainAutoencoder(Stage):
    """Trains an autoencoder and draws what it makes of pictures it has not seen.

    Attributes:
        untrained: leave the first weights as they are: the control that says what training was worth.
    """

    exports: ClassVar[tuple[str, ...]] = (RECONSTRUCTIONS,)
    version: ClassVar[int] = 1
    data: CaptionSet
    trainer: TrainerConfig
    callbacks: dict[str, L.Callback]
    untrained: bool = False

    @property
    @abstractmethod
    def settings(self) -> PretrainAutoencoderConfig:
        """How to train."""

    @abstractmethod
    def module(self, stage: str) -> Autoencoding:
        """A new autoencoder and its objective."""

    def finish(self, model: Autoencoder, train: NDArray[Any]) -> dict[str, float]:
        """What is left to do once training has ended; returns what to note of it."""
        return {}

    def check(self) -> None:
        if self.data.modality != "image":
            raise ConfigError(f"encoder: an autoencoder reads image inputs, "
                              f"but data: {type(self.data).__name__} has {self.data.modality} inputs")  # fmt: skip

    def fingerprints(self) -> dict[str, str]:
        return {"data": self.data.fingerprint}

    def make(self, work: Work) -> dict[str, Any]:
        L.seed_everything(self.settings.seed, verbose=False)
        module = self.module(work.stage)
        side = module.model.config.resolution
        train_file, val_file = work.folder / f"train.{PIXELS}", work.folder / f"val.{PIXELS}"
        train = write_pixels(train_file, self.data, self.data.splits["train"], side)
        val = write_pixels(val_file, self.data, self.data.splits["val"], side)
        metrics = {} if self.untrained else self._fit(module, train, val, work)
        model = module.model.eval()
        place_on(model, work.device)  # lightning brings it back to the CPU
        metrics |= self.finish(model, train)
        save_autoencoder(model, work.folder)
        draw_reconstructions(model, val, work.folder / RECONSTRUCTIONS)
        train_file.unlink()
        val_file.unlink()
        return {work.stage: metrics}

    def _fit(self, module: Autoencoding, train: NDArray[Any], val: NDArray[Any], work: Work) -> dict[str, float]:
        settings = self.settings
        logged = fit(
            module,
            PixelDataModule(train, val, batch_size=settings.batch_size, steps=settings.steps, seed=settings.seed),
            stage=work.stage,
            folder=work.folder,
            loggers=work.loggers,
            steps=settings.steps,
            seed=settings.seed,
            clip_norm=settings.optimizer.clip_norm,
            trainer=self.trainer,
            callbacks=self.callbacks.values(),
        )
        return {name.removeprefix(f"{work.stage}/"): value for name, value in logged.items()}


@dataclass(frozen=True, kw_only=True)
class PretrainVAE(PretrainAutoencoder):
    """Of a variational one; channels that say nothing about the training pictures are silenced."""

    fit: PretrainVAEConfig

    @property
    def settings(self) -> PretrainVAEConfig:
        return self.fit

    def module(self, stage: str) -> Autoencoding:
        return VariationalAutoencoding(VAE(self.fit.model), self.fit, stage)

    def finish(self, model: Autoencoder, train: NDArray[Any]) -> dict[str, float]:
        assert isinstance(model, VAE)
        if not self.untrained:
            model.active.copy_(active_channels(model, train))
        active = int(model.active.sum())
        if not active:
            console.print(
                "  pretrain_vae: no channel says anything about the pictures: train longer, or lower kl_weight"
            )
        return {"active_channels": active}


@dataclass(frozen=True, kw_only=True)
class PretrainVQVAE(PretrainAutoencoder):
    """Of a vector-quantised one."""

    fit: PretrainVQVAEConfig

    @property
    def settings(self) -> PretrainVQVAEConfig:
        return self.fit

    def module(self, stage: str) -> Autoencoding:
        return VectorQuantisedAutoencoding(VQVAE(self.fit.model), self.fit, stage)


@torch.no_grad()
def active_channels(model: VAE, mapped: NDArray[Any]) -> Bool[Tensor, " channels"]:
    """The channels whose posterior means vary enough over pictures and cells to say something."""
    count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for start in range(0, len(mapped), _CHUNK):
        batch = batch_of(mapped, range(start, min(start + _CHUNK, len(mapped)))).to(model.active.device)
        means = model.posterior(from_bytes(batch)).mean.flatten(0, 1).cpu().double()
        count, total, squares = count + len(means), total + means.sum(0), squares + means.square().sum(0)
    variance: Tensor = squares / count - (total / count).square()
    return variance > ACTIVE_VARIANCE


@torch.no_grad()
def draw_reconstructions(model: Autoencoder, mapped: NDArray[Any], path: Path) -> None:
    """Write a PNG: pictures evenly spaced over these, each above what the autoencoder makes of it."""
    count = min(_SHOWN, len(mapped))
    batch = batch_of(mapped, [index * len(mapped) // count for index in range(count)])
    seen = batch.to(next(model.parameters()).device)
    again = (model.pictures(model.latents(from_bytes(seen))) * 255).round().byte().cpu()
    rows = [torch.cat(list(row.permute(0, 2, 3, 1)), dim=1) for row in (batch, again)]
    Image.fromarray(np.ascontiguousarray(torch.cat(rows).numpy())).save(path)
