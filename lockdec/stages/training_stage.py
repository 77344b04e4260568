"""What the stages that train have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import MISSING

from lockdec.config.schema import TrainerConfig, require_at_least
from lockdec.errors import ConfigError
from lockdec.optimizers.optimization import OptimizerConfig
from lockdec.stages.stage import Stage, Work

if TYPE_CHECKING:
    import lightning as L


@dataclass
class TrainingConfig:
    """How long and by which steps a stage learns.

    Attributes:
        steps: of the optimizer.
    """

    steps: int = MISSING
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def check_training(self, key: str, **least: float) -> None:
        """Raise ConfigError, naming the key below `key`, where a value is out of range.

        Args:
            least: further keys, each with its least value.
        """
        require_at_least(key, self, steps=1, **least)
        self.optimizer.check(f"{key}.optimizer")


@dataclass(frozen=True, kw_only=True)
class TrainingStage(Stage):
    """A stage that trains a module.

    Attributes:
        fit: how; a subclass gives it the type of its section.
        trainer: on what.
        callbacks: Lightning's, of the user, by any names.
    """

    neutral: ClassVar[tuple[str, ...]] = (
        *Stage.neutral,
        "trainer.accelerator",
        "trainer.devices",
        "trainer.strategy",  # however many ranks there are, each takes its share of the same batches
        "trainer.threads",
        "trainer.checkpoint_seconds",
        "trainer.on_nan=stop",  # the default, and older than this option; a stage that stops has no result
        "trainer.compile=False",  # the default, and older than this option; compiled, dropout draws other numbers
        "fit.optimizer.kind=adamw",  # older than this option, so that artifacts made without it keep their keys
    )
    code: ClassVar[tuple[str, ...]] = (
        "lockdec.modules.objective",
        "lockdec.optimizers.muon",
        "lockdec.optimizers.optimization",
        "lockdec.training.batching",
    )
    fit: TrainingConfig
    trainer: TrainerConfig
    callbacks: dict[str, Any]

    def __post_init__(self) -> None:
        if self.callbacks:
            import lightning as L

            for name, callback in self.callbacks.items():
                if not isinstance(callback, L.Callback):
                    raise ConfigError(f"callbacks.{name} must name a Callback of Lightning by _target_, not "
                                      f"{type(callback).__name__}")  # fmt: skip

    def train(
        self,
        module: L.LightningModule,
        batches: L.LightningDataModule,
        work: Work,
        seed: int,
        callbacks: Iterable[L.Callback] = (),
        val_every: int | None = None,
    ) -> dict[str, float]:
        """Train the module for `fit.steps`, continuing from the last checkpoint of a killed attempt; see `fit`.

        Args:
            seed: of everything random in a step.
            callbacks: beside those of the user.
            val_every: steps between two measurements on the validation data; None for one at the end.

        Returns:
            The last logged metrics, by names without that of the stage.
        """
        from lockdec.training.fit import fit

        logged = fit(
            module,
            batches,
            stage=work.stage,
            folder=work.folder,
            loggers=work.loggers,
            steps=self.fit.steps,
            seed=seed,
            clip_norm=self.fit.optimizer.clip_norm,
            trainer=self.trainer,
            callbacks=[*self.callbacks.values(), *callbacks],
            val_every=val_every,
        )
        return {name.removeprefix(f"{work.stage}/"): value for name, value in logged.items()}


@dataclass(frozen=True, kw_only=True)
class EncoderStage(TrainingStage):
    """A stage that pretrains an encoder; see `PretrainedHere`."""

    @property
    @abstractmethod
    def sizes(self) -> Any:
        """Of its network, from the config."""
