"""Pretrain an autoencoder on the pictures of the training split; captions are not read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from omegaconf import MISSING
from PIL import Image
from torch import Tensor

from lockdec.console import console
from lockdec.data.captions import CaptionSet, spread
from lockdec.encoders.autoencoder import Autoencoder, from_bytes, save_autoencoder
from lockdec.encoders.configuration import AutoencoderConfig, VAEConfig, VQVAEConfig
from lockdec.encoders.vae import ACTIVE_VARIANCE, VAE
from lockdec.encoders.vqvae import VQVAE
from lockdec.errors import ConfigError
from lockdec.runtime.devices import place_on
from lockdec.runtime.memory import require_memory
from lockdec.stages.stage import Stage, Work
from lockdec.stages.training_stage import EncoderStage, TrainingConfig
from lockdec.transformer.configuration import require

if TYPE_CHECKING:
    from lockdec.modules.autoencoding import Autoencoding

RECONSTRUCTIONS = "reconstructions.png"
_SHOWN = 12  # pictures of the validation split, each above its reconstruction
_CHUNK = 256  # pictures encoded at a time after training


@dataclass
class PretrainAutoencoderConfig(TrainingConfig):
    """How an autoencoder of pictures learns.

    Attributes:
        seed: moves the initial weights, the order of the pictures and the noise in each step.
        batch_size: pictures a step.
    """

    seed: int = MISSING
    batch_size: int = MISSING


@dataclass
class PretrainVAEConfig(PretrainAutoencoderConfig):
    """How a variational autoencoder learns (Kingma and Welling 2014).

    Attributes:
        kl_weight: of the divergence in nats against the squared error summed over pixels: twice the variance of the
            noise that a pixel is assumed to have.
        free_bits: nats per latent number, the mean over pictures and cells, below which the divergence of a channel
            costs nothing (Kingma et al. 2016, C.8); 0 for none.
    """

    model: VAEConfig = field(default_factory=VAEConfig)
    kl_weight: float = MISSING
    free_bits: float = MISSING

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        self.check_training("pretrain_vae", batch_size=1)
        self.model.check("pretrain_vae.model")
        require(self.kl_weight >= 0, "pretrain_vae.kl_weight", self.kl_weight, "must not be negative")
        require(self.free_bits >= 0, "pretrain_vae.free_bits", self.free_bits, "must not be negative")


@dataclass
class PretrainVQVAEConfig(PretrainAutoencoderConfig):
    """How a vector-quantised autoencoder learns (van den Oord et al. 2017).

    Attributes:
        commitment: weight of the mean squared distance between latents and their codes beside that of the pixels.
    """

    model: VQVAEConfig = field(default_factory=VQVAEConfig)
    commitment: float = MISSING

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        self.check_training("pretrain_vqvae", batch_size=1)
        self.model.check("pretrain_vqvae.model")
        require(self.commitment >= 0, "pretrain_vqvae.commitment", self.commitment, "must not be negative")


@dataclass(frozen=True, kw_only=True)
class PretrainAutoencoder(EncoderStage):
    """Trains an autoencoder and draws how it reconstructs pictures that it has not seen.

    Attributes:
        untrained: keep the initial weights: a control that shows what training contributes.
    """

    version: ClassVar[int] = 1
    neutral: ClassVar[tuple[str, ...]] = (*EncoderStage.neutral, "data.case")  # it reads no captions
    code: ClassVar[tuple[str, ...]] = (
        *EncoderStage.code,
        "lockdec.encoders.autoencoder",
        "lockdec.encoders.vae",
        "lockdec.encoders.vqvae",
        "lockdec.modules.autoencoding",
        "lockdec.training.pixels",
    )
    exports: ClassVar[tuple[str, ...]] = (RECONSTRUCTIONS,)
    fit: PretrainAutoencoderConfig
    data: CaptionSet
    untrained: bool = False

    @abstractmethod
    def module(self, stage: str) -> Autoencoding:
        """A new autoencoder and its objective."""

    def finish(self, model: Autoencoder, train: NDArray[Any]) -> dict[str, float]:
        """What follows the training; returns further metrics."""
        return {}

    def check(self) -> None:
        if self.data.modality != "image":
            raise ConfigError(f"encoder: an autoencoder reads image inputs, "
                              f"but data: {type(self.data).__name__} has {self.data.modality} inputs")  # fmt: skip

    @property
    @abstractmethod
    def sizes(self) -> AutoencoderConfig:
        """Of the autoencoder."""

    def rehearse(self, device: torch.device, before: Mapping[str, Stage], keys: Mapping[str, str]) -> None:
        sizes = self.sizes
        described = f"{self.name}.model (widths={list(sizes.widths)}, blocks={sizes.blocks}, channels={sizes.channels})"
        require_memory(described, sizes.least_parameters)

    def fingerprints(self) -> dict[str, str]:
        return {"data": self.data.caseless_fingerprint}

    def make(self, work: Work) -> dict[str, Any]:
        import lightning as L

        from lockdec.training.pixels import PIXELS, write_pixels

        L.seed_everything(self.fit.seed, verbose=False)
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
        from lockdec.training.pixels import PixelDataModule

        fit = self.fit
        batches = PixelDataModule(train, val, batch_size=fit.batch_size, steps=fit.steps, seed=fit.seed)
        return self.train(module, batches, work, fit.seed)


@dataclass(frozen=True, kw_only=True)
class PretrainVAE(PretrainAutoencoder):
    """A variational one; channels that ignore the picture are set to zero."""

    name: ClassVar[str] = "pretrain_vae"
    section = PretrainVAEConfig
    fit: PretrainVAEConfig

    @property
    def sizes(self) -> VAEConfig:
        return self.fit.model

    def module(self, stage: str) -> Autoencoding:
        from lockdec.modules.autoencoding import VariationalAutoencoding

        fit, model = self.fit, VAE(self.fit.model)
        return VariationalAutoencoding(model, fit.optimizer, fit.steps, stage, fit.kl_weight, fit.free_bits)

    def finish(self, model: Autoencoder, train: NDArray[Any]) -> dict[str, float]:
        assert isinstance(model, VAE)
        if not self.untrained:
            model.active.copy_(active_channels(model, train))
        active = int(model.active.sum())
        if not active:
            console.print(
                "  pretrain_vae: no channel carries information about the pictures: train longer, or lower kl_weight"
            )
        return {"active_channels": active}


@dataclass(frozen=True, kw_only=True)
class PretrainVQVAE(PretrainAutoencoder):
    """A vector-quantised one."""

    name: ClassVar[str] = "pretrain_vqvae"
    section = PretrainVQVAEConfig
    fit: PretrainVQVAEConfig

    @property
    def sizes(self) -> VQVAEConfig:
        return self.fit.model

    def module(self, stage: str) -> Autoencoding:
        from lockdec.modules.autoencoding import VectorQuantisedAutoencoding

        fit, model = self.fit, VQVAE(self.fit.model)
        return VectorQuantisedAutoencoding(model, fit.optimizer, fit.steps, stage, fit.commitment)


@torch.no_grad()
def active_channels(model: VAE, mapped: NDArray[Any]) -> Bool[Tensor, " channels"]:
    """The channels whose posterior means vary over pictures and cells by more than `ACTIVE_VARIANCE`."""
    from lockdec.training.pixels import batch_of

    count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for start in range(0, len(mapped), _CHUNK):
        batch = batch_of(mapped, range(start, min(start + _CHUNK, len(mapped)))).to(model.active.device)
        means = model.posterior(from_bytes(batch)).mean.flatten(0, 1).cpu().double()
        count, total, squares = count + len(means), total + means.sum(0), squares + means.square().sum(0)
    variance: Tensor = squares / count - (total / count).square()
    return variance > ACTIVE_VARIANCE


@torch.no_grad()
def draw_reconstructions(model: Autoencoder, mapped: NDArray[Any], path: Path) -> None:
    """Write a PNG: pictures evenly spaced over these, each above its reconstruction."""
    from lockdec.training.pixels import batch_of

    batch = batch_of(mapped, spread(range(len(mapped)), _SHOWN))
    seen = batch.to(next(model.parameters()).device)
    again = (model.pictures(model.latents(from_bytes(seen))) * 255).round().byte().cpu()
    rows = [torch.cat(list(row.permute(0, 2, 3, 1)), dim=1) for row in (batch, again)]
    Image.fromarray(np.ascontiguousarray(torch.cat(rows).numpy())).save(path)
