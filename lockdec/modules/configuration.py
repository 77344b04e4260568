"""How encoders are pretrained and what every training has in common, as plain data.

Imports no torch, so that the config schema can be built from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from lockdec.encoders.configuration import VAEConfig, VQVAEConfig
from lockdec.errors import ConfigError
from lockdec.transformer.configuration import EncoderConfig, require, require_counts

OPTIMIZERS = ("adamw", "muon")
SCHEDULES = ("cosine", "constant", "inverse_square_root")


@dataclass
class OptimizerConfig:
    """AdamW, which without weight decay is Adam, with a linear warm-up.

    Attributes:
        learning_rate: at the end of the warm-up, where it is highest.
        schedule: after the warm-up, `cosine` (down to a tenth), `constant`, or `inverse_square_root` of the step, which
            with `noam_peak` as learning rate is the schedule of Vaswani et al. 2017, 5.3.
        clip_norm: the gradient's largest norm; 0 does not clip.
        eps: what Adam adds to the root of the second moment.
    """

    learning_rate: float = MISSING
    weight_decay: float = MISSING
    betas: list[float] = MISSING
    warmup_steps: int = MISSING
    schedule: str = MISSING
    clip_norm: float = MISSING
    eps: float = 1e-8

    def check(self, key: str) -> None:
        """Raise ConfigError, naming the key below `key`, where a value is out of range."""
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"{key}.schedule={self.schedule} is not one of: {', '.join(SCHEDULES)}")
        for name in ("learning_rate", "eps"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{key}.{name}={getattr(self, name)} must be above 0")
        if self.schedule == "inverse_square_root" and self.warmup_steps < 1:
            raise ConfigError(f"{key}.warmup_steps={self.warmup_steps}: inverse_square_root needs at least 1")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"{key}.betas={list(self.betas)} must be two numbers of 0 <= beta < 1")
        for name in ("weight_decay", "warmup_steps", "clip_norm"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{key}.{name}={getattr(self, name)} must not be negative")


@dataclass
class FinetuneOptimizerConfig(OptimizerConfig):
    """The same for cross-attention, which Muon may train instead of AdamW: in fewer steps, of a higher learning rate.

    Attributes:
        kind: adamw, or muon (`lockdec.optimizers.muon`). Of the betas the first is Muon's momentum; it has no second.
    """

    kind: str = MISSING

    def check(self, key: str) -> None:
        super().check(key)
        if self.kind not in OPTIMIZERS:
            raise ConfigError(f"{key}.kind={self.kind} is not one of: {', '.join(OPTIMIZERS)}")


@dataclass
class PretrainEncoderConfig:
    """How a text encoder learns to read, by masked language modelling (Devlin et al. 2019, 3.1).

    Attributes:
        seed, batch_tokens: as of `PretrainConfig`; the seed also moves what is masked.
        model: the encoder's sizes; its tokenizer's `vocab_size` counts, not the one in here.
        masked: share of the tokens to be predicted; of these 80 % are hidden, 10 % replaced and 10 % left.
    """

    seed: int = MISSING
    vocab_size: int = MISSING
    model: EncoderConfig = field(default_factory=EncoderConfig)
    steps: int = MISSING
    batch_tokens: int = MISSING
    masked: float = MISSING
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        require_counts("pretrain_encoder", steps=self.steps, batch_tokens=self.batch_tokens)
        if not 0 < self.masked < 1:
            raise ConfigError(f"pretrain_encoder.masked={self.masked} must be above 0 and below 1")
        self.model.check()
        self.optimizer.check("pretrain_encoder.optimizer")


@dataclass
class PretrainAutoencoderConfig:
    """How an autoencoder of pictures learns.

    Attributes:
        seed: moves the initial weights, the order of the pictures and the luck in each step.
        batch_size: pictures a step.
    """

    seed: int = MISSING
    steps: int = MISSING
    batch_size: int = MISSING
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def check_training(self, key: str) -> None:
        """Raise ConfigError, naming the key below `key`, where a value is out of range."""
        require_counts(key, steps=self.steps, batch_size=self.batch_size)
        self.optimizer.check(f"{key}.optimizer")


@dataclass
class PretrainVAEConfig(PretrainAutoencoderConfig):
    """How a variational autoencoder learns (Kingma and Welling 2014).

    Attributes:
        kl_weight: of the divergence in nats beside the squared error summed over pixels; so twice the variance of the
            noise that pixels are thought to have.
        free_bits: nats per latent number, the mean over pictures and cells, below which the divergence of a channel
            costs nothing (Kingma et al. 2016, C.8); 0 for none.
    """

    model: VAEConfig = field(default_factory=VAEConfig)
    kl_weight: float = MISSING
    free_bits: float = MISSING

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        self.check_training("pretrain_vae")
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
        self.check_training("pretrain_vqvae")
        self.model.check("pretrain_vqvae.model")
        require(self.commitment >= 0, "pretrain_vqvae.commitment", self.commitment, "must not be negative")
