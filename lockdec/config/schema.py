"""The config schema.

The dataclasses below type every key that lockdec itself reads; Hydra refuses unknown keys and wrong types against them
when it composes a config. Groups whose options are classes (`data`, `encoder`, `text`, `stages.*`) name theirs with
`_target_`; their keys are checked against the signature of that class when it is built, before any work starts.
This module does not import torch: `--help` has to answer at once.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from lockdec.errors import ConfigError
from lockdec.modules.configuration import (
    FinetuneOptimizerConfig,
    OptimizerConfig,
    PretrainEncoderConfig,
    PretrainVAEConfig,
    PretrainVQVAEConfig,
)
from lockdec.transformer.configuration import CrossAttentionConfig, DecoderConfig, GenerationConfig

OF_STAGES = (  # sections that stages read
    "pretrain",
    "pretrain_encoder",
    "pretrain_vae",
    "pretrain_vqvae",
    "finetune",
    "translate",
    "evaluate",
)


@dataclass
class PathsConfig:
    """Where things are written; `outputs` holds runs/, sweeps/ and stages/."""

    outputs: str = MISSING


@dataclass
class ImportedDecoderConfig(DecoderConfig):
    """A decoder that somebody else pretrained: the sizes it inherits are not read, the checkpoint has its own.

    Attributes:
        path: a local folder, or the id of a model on the Hugging Face hub.
    """

    path: str = MISSING


@dataclass
class TokenizerConfig:
    """The byte-level BPE; `vocab_size` counts the special tokens and the 256 bytes."""

    vocab_size: int = MISSING


@dataclass
class PretrainConfig:
    """How the locked decoder learns to write.

    Attributes:
        seed: moves the initial weights and the order of the text, and nothing after pretraining.
        batch_tokens: how many tokens (padding included) a batch holds at most.
    """

    seed: int = MISSING
    steps: int = MISSING
    batch_tokens: int = MISSING
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        _at_least("pretrain", self, steps=1, batch_tokens=1)
        self.optimizer.check("pretrain.optimizer")


@dataclass
class TranslateConfig:
    """How the book's transformer learns to translate.

    Attributes:
        seed: moves the initial weights and the order of the pairs.
        shots: how many training pairs are known, drawn by `support_seed` as a support set is; null for all.
        batch_size: pairs a step.
        label_smoothing: 0 <= value < 1, spread over the vocabulary.
        val_every: steps between two measurements on the validation split.
    """

    seed: int = MISSING
    shots: int | None = None
    support_seed: int = MISSING
    steps: int = MISSING
    batch_size: int = MISSING
    label_smoothing: float = MISSING
    val_every: int = MISSING
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        _at_least("translate", self, steps=1, batch_size=1, val_every=1)
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"translate.label_smoothing={self.label_smoothing} must be at least 0 and below 1")
        self.optimizer.check("translate.optimizer")


@dataclass
class FewshotConfig:
    """The support set: `shots` inputs of the training split, with one caption each, drawn by `support_seed`."""

    shots: int = MISSING
    support_seed: int = MISSING

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        _at_least("fewshot", self, shots=1)


@dataclass
class FinetuneConfig:
    """How the unlocked cross-attention learns from the support set.

    Attributes:
        batch_size: pairs a step.
        label_smoothing: 0 <= value < 1, spread over the vocabulary.
        decoder_dropout: whether the frozen decoder's dropout is on while its cross-attention learns.
        state_noise: standard deviation of the Gaussian noise added to the normalised encoder states.
        state_dropout: share of encoder states hidden from each pair at each step.
    """

    steps: int = MISSING
    batch_size: int = MISSING
    label_smoothing: float = MISSING
    decoder_dropout: bool = MISSING
    state_noise: float = MISSING
    state_dropout: float = MISSING
    optimizer: FinetuneOptimizerConfig = field(default_factory=FinetuneOptimizerConfig)

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        _at_least("finetune", self, steps=1, batch_size=1, state_noise=0)
        for name in ("label_smoothing", "state_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"finetune.{name}={getattr(self, name)} must be at least 0 and below 1")
        self.optimizer.check("finetune.optimizer")


@dataclass
class EvaluateConfig(GenerationConfig):
    """How the finetuned captioner is judged; the fields it inherits say how captions are written.

    Attributes:
        split: `val` to choose settings, `test` to report.
        seed: of the strategies that draw (nucleus, top_k).
    """

    group: ClassVar[str] = "evaluate"

    split: str = MISSING
    batch_size: int = MISSING
    seed: int = MISSING

    @property
    def generation(self) -> dict[str, Any]:
        """The options of `LockingDecoderModel.generate`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(GenerationConfig)}

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        if self.split not in ("val", "test"):
            raise ConfigError(f"evaluate.split={self.split} is not one of: val, test")
        _at_least("evaluate", self, batch_size=1)
        super().check()


@dataclass
class TrainerConfig:
    """What a stage trains on; passed to lightning's Trainer, but for what is said below.

    Attributes:
        strategy: "auto" for one process; "ddp" and "fsdp" for the ranks that torchrun or SLURM has started.
        devices: on this machine; null for as many as there are ranks on it.
        threads: CPU threads of this process; null leaves torch's own choice.
        checkpoint_seconds: how often an unfinished stage saves itself.
        on_nan: when the loss is NaN, infinite or explodes: "stop", or "rollback" to the last good checkpoint and go on
            at half the learning rate.
        compile: whether torch.compile makes kernels of the transformer's layers; that takes minutes on two CPU cores.
    """

    accelerator: str = MISSING
    devices: int | None = MISSING
    precision: str = MISSING
    threads: int | None = None
    checkpoint_seconds: float = MISSING
    on_nan: str = "stop"
    strategy: str = "auto"
    compile: bool = False

    def check(self) -> None:
        """Raise ConfigError where a value is not known."""
        if self.accelerator not in ("cpu", "gpu", "cuda", "mps", "auto"):
            raise ConfigError(f"trainer.accelerator={self.accelerator} is not one of: cpu, gpu, cuda, mps, auto")
        if self.strategy not in ("auto", "ddp", "fsdp"):
            raise ConfigError(f"trainer.strategy={self.strategy} is not one of: auto, ddp, fsdp")
        if self.on_nan not in ("stop", "rollback"):
            raise ConfigError(f"trainer.on_nan={self.on_nan} is not one of: stop, rollback")


@dataclass
class LoggerConfig:
    """Where curves go. Every stage keeps its own metrics.csv whatever is chosen here.

    Attributes:
        kinds: any of csv, wandb, tensorboard.
        mode: W&B's: offline, online or disabled.
        log_artifacts: whether W&B also gets the weights that stages make.
    """

    kinds: list[str] = MISSING
    mode: str = MISSING
    project: str = MISSING
    entity: str | None = None
    log_artifacts: bool = False

    def check(self) -> None:
        """Raise ConfigError where a value is not known."""
        for kind in self.kinds:
            if kind not in ("csv", "wandb", "tensorboard"):
                raise ConfigError(f"logger.kinds={list(self.kinds)}: {kind} is not one of: csv, wandb, tensorboard")
        if self.mode not in ("offline", "online", "disabled"):
            raise ConfigError(f"logger.mode={self.mode} is not one of: offline, online, disabled")


@dataclass
class PipelineConfig:
    """The stages of this run, in order."""

    order: list[str] = MISSING


@dataclass
class Config:
    """Everything `python -m lockdec.run` reads.

    Attributes:
        seed: moves the support set, the initial cross-attention and the order of the pairs, not the pretrained decoder.
        name: of the run; its folder and its W&B group are named after it.
        sweep_name: of the sweep a cell belongs to.
        objective: the metric of result.json that Hydra's sweepers are told.
        dry_run: only say what would be done.
        pair: values that several keys take together in a sweep, by interpolation; nothing else reads it.
        pretrain, pretrain_encoder, pretrain_vae, pretrain_vqvae, finetune, translate, evaluate: of the stages of these
            names; None without them.
    """

    seed: int = MISSING
    name: str = MISSING
    sweep_name: str = MISSING
    objective: str = MISSING
    dry_run: bool = False
    pair: Any = None
    paths: PathsConfig = field(default_factory=PathsConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    text: Any = MISSING
    data: Any = MISSING
    encoder: Any = MISSING
    cross_attention: CrossAttentionConfig = MISSING
    fewshot: FewshotConfig = field(default_factory=FewshotConfig)
    pretrain: PretrainConfig | None = None
    pretrain_encoder: PretrainEncoderConfig | None = None
    pretrain_vae: PretrainVAEConfig | None = None
    pretrain_vqvae: PretrainVQVAEConfig | None = None
    finetune: FinetuneConfig | None = None
    translate: TranslateConfig | None = None
    evaluate: EvaluateConfig | None = None
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: Any = field(default_factory=dict)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    stages: Any = field(default_factory=dict)


def register() -> None:
    """Make the schema known to Hydra as `lockdec_schema`."""
    store = ConfigStore.instance()
    # Hydra copies its sources for each group that --help lists and each config it composes, and with them this one
    # store of all schemas, though whatever is read from it is a copy already.
    vars(store)["__deepcopy__"] = lambda _: store
    store.store(name="lockdec_schema", node=Config)
    store.store(name="imported_decoder_schema", node=ImportedDecoderConfig)
    OmegaConf.register_new_resolver("noam_peak", noam_peak, replace=True)


def noam_peak(d_model: int, warmup_steps: int) -> float:
    """The highest learning rate of d_model^-0.5 min(step^-0.5, step warmup^-1.5) (Vaswani et al. 2017, 5.3)."""
    return float((d_model * warmup_steps) ** -0.5)


def config_folder() -> Path:
    """The folder of the Hydra groups: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def checked(config: DictConfig) -> Config:
    """The composed config as typed objects, its values in range and in agreement.

    Raises:
        ConfigError: names the key and what is allowed.
    """
    # Without its stage a section has at most the few values that debug=tiny gives it.
    unused = [name for name in OF_STAGES if config[name] is not None and OmegaConf.missing_keys(config[name])]
    if unused:
        config = config.copy()
        config.update(dict.fromkeys(unused))
    typed = typing.cast(Config, OmegaConf.to_object(config))
    typed.decoder.check()
    typed.cross_attention.check()
    typed.fewshot.check()
    for name in OF_STAGES:
        if section := getattr(typed, name):
            section.check()
    typed.trainer.check()
    typed.logger.check()
    for name in typed.pipeline.order:
        if name not in typed.stages:
            known = ", ".join(typed.stages)
            raise ConfigError(f"pipeline.order={list(typed.pipeline.order)}: no stage {name} (there are: {known})")
    return typed


def plain(node: Any) -> Any:
    """A config node as plain containers, interpolations resolved."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _at_least(key: str, config: Any, **least: float) -> None:
    for name, bound in least.items():
        if getattr(config, name) < bound:
            raise ConfigError(f"{key}.{name}={getattr(config, name)} must be at least {bound}")
