"""What Lightning, its callbacks and the loggers cost on top of a bare loop over the same steps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from lightning.pytorch.loggers import Logger

from benchmarks import defaults
from benchmarks.decoders import muon, train_step
from benchmarks.side_by_side import Subject
from benchmarks.worker import device
from lockdec.config.schema import LoggerConfig, TrainerConfig
from lockdec.modules.captioning import Captioning
from lockdec.tracking.loggers import Tracking
from lockdec.training.fit import fit

STEPS = 400  # of a finetune stage

TITLE = (
    f"{STEPS} steps of finetuning at default sizes by lockdec's fit, from building the Trainer to writing the curve, "
    "with the default loggers (CSV and W&B offline), and the same steps in a plain loop without schedule or logs. "
    "Finetuning has the shortest steps, so the harness costs relatively most there"
)
UNIT = "steps"
GOALS = {"bare loop": 1 / 1.05}

_OPEN = ExitStack()


@cache
def loggers() -> list[Logger]:
    """The default loggers, opened once."""
    folder = Path(_OPEN.enter_context(tempfile.TemporaryDirectory()))
    config = LoggerConfig(kinds=["csv", "wandb"], mode="offline", project="lockdec")
    return _OPEN.enter_context(Tracking(config, "benchmark", folder.name, folder, folder).stage("finetune", {}))


def module() -> Captioning:
    """What the finetune stage trains."""
    return defaults.captioning(defaults.captioner())


def ours() -> Subject:
    """The fit of the finetune stage."""
    training, trainer = module(), TrainerConfig("auto", 1, "32-true", None, checkpoint_seconds=20)

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            fit(
                training,
                defaults.support(STEPS),
                stage="finetune",
                folder=Path(folder),
                loggers=loggers(),
                steps=STEPS,
                seed=0,
                clip_norm=1.0,
                trainer=trainer,
            )

    return Subject(run, work=STEPS)


def bare() -> Subject:
    """The same steps and nothing else."""
    training = module()
    training.model.to(device()).eval()
    batches = iter(defaults.support().train_dataloader())
    weights = list(training.model.cross_attention_parameters().values())
    step = train_step(weights, lambda: training.objective(defaults.on_device(next(batches))), muon)

    def run() -> None:
        for _ in range(STEPS):
            step()

    return Subject(run, work=STEPS)


def subjects() -> Mapping[str, Callable[[], Subject]]:
    """With Lightning, and without."""
    return {"lockdec": ours, "bare loop": bare}
