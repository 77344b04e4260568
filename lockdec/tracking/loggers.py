"""Curves and metrics logged to Weights & Biases, CSV and TensorBoard, by Lightning's loggers.

Metrics are named `<stage>/<metric>` everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from lockdec.config.schema import LoggerConfig
from lockdec.store import CURVE
from lockdec.tracking import weights_and_biases as wandb_runs
from lockdec.tracking.curves import TableLogger

TENSORBOARD = "tensorboard"  # in the folder of a run: the event files of its stages


@dataclass(frozen=True)
class Tracking:
    """Opens the loggers of one stage.

    Args:
        config: which loggers.
        group: the run's or the sweep's name.
        label: the name of the run in its group.
        folder: of the run or cell; receives `stages/<stage>/metrics.csv` and `tensorboard/`.
        outputs: receives `wandb/`.
        watchers: further loggers, which stay open from stage to stage.
    """

    config: LoggerConfig
    group: str
    label: str
    folder: Path
    outputs: Path
    watchers: Sequence[Logger] = ()

    @contextmanager
    def stage(self, stage: str, hyperparameters: Mapping[str, Any]) -> Iterator[list[Logger]]:
        """The stage's loggers, closed at the end: an open W&B run would receive the rows of the next stage."""
        loggers = [self._open(kind, stage) for kind in self.config.kinds]
        status = "failed"
        try:
            for logger in loggers:
                logger.log_hyperparams(dict(hyperparameters))
            yield [*loggers, *self.watchers]
            status = "success"
        finally:
            for logger in loggers:
                logger.finalize(status)
                if isinstance(logger, WandbLogger):
                    logger.experiment.finish(exit_code=0 if status == "success" else 1)

    def publish(self, loggers: Sequence[Logger], stage: str, made: Mapping[str, Any], folder: Path) -> None:
        """Log the metrics of a stage; to W&B also its captions and, with `log_artifacts`, its weights.

        Args:
            made: the stage's metrics, as sections of result.json.
            folder: of the artifact, not yet published.
        """
        for logger in loggers:
            logger.log_metrics(flat({name: value for name, value in made.items() if name != stage}, stage))
            if isinstance(logger, WandbLogger):
                wandb_runs.log_files(logger.experiment, folder, stage, weights=self.config.log_artifacts)

    def cell(self, result: Mapping[str, Any]) -> None:
        """Log the whole run to W&B, as a run of its own that links the stages, reused ones included."""
        if "wandb" in self.config.kinds:
            known = {name: result[name] for name in wandb_runs.PARTS_OF_CONFIG if name in result}
            run = wandb_runs.open_run(self.config, self.group, self.label, wandb_runs.CELL, self.outputs, known)
            sections = {name: result[name] for name in wandb_runs.PARTS_OF_METRICS if name in result}
            numbers = {name.removeprefix("/"): value for name, value in flat(sections, "").items()}
            run.log(numbers)
            run.finish()

    def _open(self, kind: str, stage: str) -> Logger:
        if kind == "csv":
            return TableLogger(self.folder / "stages" / stage / CURVE)
        if kind == "tensorboard":
            return TensorBoardLogger(save_dir=self.folder / TENSORBOARD, name=stage, version="")
        return self._wandb(stage)

    def _wandb(self, stage: str) -> WandbLogger:
        run = wandb_runs.open_run(self.config, self.group, self.label, stage, self.outputs)
        wandb_runs.define_metrics(run, stage)
        return WandbLogger(experiment=run)


def flat(metrics: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The numbers of nested metrics, under names joined by `/`."""
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            numbers |= flat(value, f"{prefix}/{name}")
        elif isinstance(value, int | float):
            numbers[f"{prefix}/{name}"] = float(value)
    return numbers
