"""The config schema.

The dataclasses below type every key that several parts of lockdec read; Hydra refuses unknown keys and wrong types
against them when it composes a config. The section of a stage, such as `finetune`, is typed in the file of that stage,
which imports torch: Hydra refuses a key that the stage's YAML does not have, and `lockdec.config.checking` a wrong
type, before any work starts. Groups whose options are classes (`data`, `encoder`, `text`, `stages.*`) name theirs with
`_target_`; their keys are checked against the signature of that class when it is built, before any work starts, too.
This module does not import torch: `--help` has to answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from os.path import expanduser
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import omegaconf.base
import omegaconf.grammar_parser
from omegaconf import MISSING, OmegaConf

from lockdec.errors import ConfigError
from lockdec.store.reading import LONGEST_NAME, is_name
from lockdec.transformer.configuration import CrossAttentionConfig, DecoderConfig

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
MOST_THREADS = MOST_DEVICES = 1024
SMALLEST_VOCABULARY, LARGEST_VOCABULARY = 259, 1_000_000  # a larger one has no use, and ends the process in tokenizers
NO_PROJECT = "/\\#?%:"  # what W&B takes in no name of a project


@dataclass
class PathsConfig:
    """Where output goes; `outputs` holds runs/, sweeps/ and stages/.

    Attributes:
        stores: folders like stages/ that others have made. Their artifacts are used from where they are; nothing is
            written there.
    """

    outputs: str = MISSING
    stores: list[str] = field(default_factory=list)

    @property
    def places(self) -> list[Path]:
        """Where artifacts are looked up, in this order; the last one is written to."""
        return [*(Path(expanduser(store)) for store in self.stores), Path(self.outputs) / "stages"]


@dataclass
class ImportedDecoderConfig(DecoderConfig):
    """A decoder that somebody else pretrained. The sizes it inherits are not read; the checkpoint has its own.

    Attributes:
        path: a local folder, or the id of a model on the Hugging Face hub.
        dtype: in which precision it computes: float32, bfloat16, or auto for what suits checkpoint and machine.
    """

    path: str = MISSING
    dtype: str = "auto"

    def check(self) -> None:
        """Raise ConfigError where a value is not known."""
        super().check()
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"decoder.dtype={self.dtype} is not one of: auto, float32, bfloat16")


@dataclass
class TokenizerConfig:
    """The byte-level BPE; `vocab_size` counts the special tokens and the 256 bytes."""

    vocab_size: int = MISSING

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        require_vocabulary("tokenizer", self)


@dataclass
class FewshotConfig:
    """The support set: `shots` inputs of the training split, drawn by `support_seed`.

    Attributes:
        references: "one" caption of each input, drawn too, or "all", each as a pair.
    """

    shots: int = MISSING
    support_seed: int = MISSING
    references: str = "one"

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        require_at_least("fewshot", self, shots=1)
        if self.references not in ("one", "all"):
            raise ConfigError(f"fewshot.references={self.references} is not one of: one, all")


@dataclass
class TrainerConfig:
    """What a stage trains on; passed to Lightning's Trainer, except as noted below.

    Attributes:
        precision: 32-true; bf16-mixed; or, on a GPU, 16-mixed. Others do not train here.
        strategy: "auto" for one process; "ddp" and "fsdp" for the ranks that torchrun or SLURM has started.
        devices: on this machine; null for as many as there are ranks on it.
        threads: CPU threads of this process; null leaves torch's own choice.
        checkpoint_seconds: how often an unfinished stage is saved.
        on_nan: when the loss is NaN, infinite or explodes: "stop", or "rollback" to the last good checkpoint and
            continue at half the learning rate.
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
        if self.precision not in PRECISIONS:
            raise ConfigError(f"trainer.precision={self.precision} is not one of: {', '.join(PRECISIONS)}")
        if self.precision == "16-mixed" and self.accelerator == "cpu":
            raise ConfigError("trainer.precision=16-mixed needs a GPU; on a CPU use bf16-mixed or 32-true")
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise ConfigError(f"trainer.threads={self.threads} must be from 1 to {MOST_THREADS}, or null")
        if self.devices is not None and not 1 <= self.devices <= MOST_DEVICES:
            raise ConfigError(f"trainer.devices={self.devices} must be from 1 to {MOST_DEVICES}, or null for as many "
                              "as there are ranks")  # fmt: skip
        if self.strategy == "auto" and (self.devices or 1) > 1:
            raise ConfigError(f"trainer.devices={self.devices}: trainer.strategy=auto trains on one device; for "
                              f"several use trainer=ddp trainer.devices={self.devices}")  # fmt: skip
        require_at_least("trainer", self, checkpoint_seconds=0)


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
        for key in ("project", "entity"):
            value = getattr(self, key)
            if value is not None and (not 0 < len(value) <= 128 or set(value) & set(NO_PROJECT)):
                raise ConfigError(
                    f"logger.{key}={value}: use a name of 1 to 128 characters without {' '.join(NO_PROJECT)}"
                )


@dataclass
class PipelineConfig:
    """The stages of this run, in order."""

    order: list[str] = MISSING


@dataclass
class Config:
    """Everything that `python -m lockdec.run` reads, except the sections of single stages.

    Attributes:
        seed: moves the support set, the initial cross-attention and the order of the pairs, not the pretrained decoder.
        name: of the run; its folder and its W&B group are named after it.
        sweep_name: of the sweep a cell belongs to.
        objective: the metric of result.json that Hydra's sweepers optimise.
        dry_run: only say what would be done.
        pair: values that several keys take together in a sweep, by interpolation; nothing else reads it.
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
    bridge: Any = field(default_factory=dict)
    fewshot: FewshotConfig = field(default_factory=FewshotConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: Any = field(default_factory=dict)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    stages: Any = field(default_factory=dict)


@runtime_checkable
class Section(Protocol):
    """What a stage reads from the section of the config that has its name: a dataclass that checks its values."""

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""


def require_name(key: str, name: object) -> str:
    """The name, if it can name one folder.

    Raises:
        ConfigError: it would lead to another place, is hidden, empty or too long, or has characters that do not print.
    """
    text = str(name)
    if not is_name(text):
        if (size := len(text.encode(errors="replace"))) > LONGEST_NAME:
            raise ConfigError(f"{key}={text[:20]}...: use at most {LONGEST_NAME} bytes, not {size}")
        raise ConfigError(f"{key}={text!r} names one folder: use letters and digits, no slash, and no dot in front")
    return text


def register() -> None:
    """Make the schema known to Hydra as `lockdec_schema`."""
    from hydra.core.config_store import ConfigStore  # here, since captioning needs the schema and no Hydra

    store = ConfigStore.instance()
    # Hydra copies its sources for each group that --help lists, and with them this one store of all schemas, although
    # whatever is read from it is a copy already. Without the copies, --help takes 0.4 s of CPU time instead of 1.4 s;
    # python -m benchmarks start_help measures it.
    vars(store)["__deepcopy__"] = lambda _: store
    # The YAML of a stage adds its section. After it has composed the defaults, Hydra refuses further keys.
    store.store(name="lockdec_schema", node=OmegaConf.structured(Config, flags={"struct": False}))
    store.store(name="imported_decoder_schema", node=ImportedDecoderConfig)
    vars(omegaconf.base)["parse"] = _parse
    OmegaConf.register_new_resolver("noam_peak", noam_peak, replace=True)
    OmegaConf.register_new_resolver("one_folder", require_name, replace=True)


# OmegaConf parses `${finetune.steps}` anew wherever it stands and for each cell of a sweep: half of the time that it
# takes to resolve a config. What is parsed is only read.
_parse = lru_cache(maxsize=4096)(omegaconf.grammar_parser.parse)


def noam_peak(d_model: int, warmup_steps: int) -> float:
    """The highest learning rate of d_model^-0.5 min(step^-0.5, step warmup^-1.5) (Vaswani et al. 2017, 5.3)."""
    return float((d_model * warmup_steps) ** -0.5)


def config_folder() -> Path:
    """The folder of the Hydra groups: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def require_vocabulary(key: str, config: Any) -> None:
    """Raise ConfigError where `vocab_size` below `key` has no room for every byte, or is of no use."""
    if not SMALLEST_VOCABULARY <= config.vocab_size <= LARGEST_VOCABULARY:
        raise ConfigError(f"{key}.vocab_size={config.vocab_size} must be from {SMALLEST_VOCABULARY} (256 bytes "
                          f"and 3 special tokens) to {LARGEST_VOCABULARY}")  # fmt: skip


def require_at_least(key: str, config: Any, **least: float) -> None:
    """Raise ConfigError, naming the key below `key`, where an attribute of `config` is below its least value."""
    for name, bound in least.items():
        if getattr(config, name) < bound:
            raise ConfigError(f"{key}.{name}={getattr(config, name)} must be at least {bound}")
