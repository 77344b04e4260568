"""Where curves and metrics go: Weights & Biases, CSV and TensorBoard, by Lightning's loggers.

One W&B run per executed stage: `group` is the run's or the sweep's name, `job_type` the stage. Metrics are named
`<stage>/<metric>` everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from lockdec.config import LoggerConfig

LOWER_IS_BETTER = ("loss",)  # every other metric is better when it is higher


@dataclass(frozen=True)
class Tracking:
    """Opens the loggers of one stage.

    Args:
        config: which loggers.
        group: the run's or the sweep's name.
        folder: of the run or cell; receives `stages/<stage>/metrics.csv` and `tensorboard/`.
        outputs: receives `wandb/`.
    """

    config: LoggerConfig
    group: str
    folder: Path
    outputs: Path

    @contextmanager
    def stage(self, stage: str, hyperparameters: Mapping[str, Any]) -> Iterator[list[Logger]]:
        """The stage's loggers, closed at the end: a W&B run left open would swallow the next stage's rows."""
        loggers = [self._open(kind, stage) for kind in self.config.kinds]
        status = "failed"
        try:
            for logger in loggers:
                logger.log_hyperparams(dict(hyperparameters))
            yield loggers
            status = "success"
        finally:
            for logger in loggers:
                logger.finalize(status)
                if isinstance(logger, WandbLogger):
                    logger.experiment.finish(exit_code=0 if status == "success" else 1)

    def _open(self, kind: str, stage: str) -> Logger:
        if kind == "csv":
            return CSVLogger(save_dir=self.folder / "stages", name=stage, version="")
        if kind == "tensorboard":
            return TensorBoardLogger(save_dir=self.folder / "tensorboard", name=stage, version="")
        return self._wandb(stage)

    def _wandb(self, stage: str) -> WandbLogger:
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        self.outputs.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=self.config.project,
            entity=self.config.entity,
            group=self.group,
            job_type=stage,
            name=f"{self.group}/{self.folder.name}/{stage}",
            dir=self.outputs,
            mode=self.config.mode,  # type: ignore[arg-type]
            reinit="create_new",
            settings=wandb.Settings(console="off", x_disable_stats=True, x_disable_meta=True),
        )
        run.define_metric("*", step_metric="trainer/global_step")
        for metric in LOWER_IS_BETTER:
            run.define_metric(f"{stage}/{metric}", summary="min", step_metric="trainer/global_step")
        return WandbLogger(experiment=run)


def flat(metrics: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The numbers of nested metrics under names joined by `/`, as loggers want them."""
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            numbers |= flat(value, f"{prefix}/{name}")
        elif isinstance(value, int | float):
            numbers[f"{prefix}/{name}"] = float(value)
    return numbers
