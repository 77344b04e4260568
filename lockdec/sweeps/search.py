"""A search on disk: Optuna's study, as a journal in the sweep's folder, and the outcomes of its trials."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from lightning.pytorch.loggers.logger import DummyLogger, Logger
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import TrialState

from lockdec.console import console, printable
from lockdec.errors import ConfigError, PrunedError
from lockdec.store.reading import RESULT

WAYS = ("maximize", "minimize")


def open_study(folder: Path, objectives: Mapping[str, str]) -> optuna.Study:
    """The study in a sweep's folder, created where there is none.

    Raises:
        ConfigError: the direction of an objective is unknown, or the study has other objectives.
    """
    if wrong := [f"{name}={way}" for name, way in objectives.items() if way not in WAYS]:
        raise ConfigError(f"hydra.sweeper.objectives.{wrong[0]} is not one of: {', '.join(WAYS)}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "search.journal")))
    directions = [StudyDirection[way.upper()] for way in objectives.values()]
    study = optuna.create_study(storage=storage, study_name="search", directions=directions, load_if_exists=True)
    if (begun := study.user_attrs.get("objectives", dict(objectives))) != dict(objectives):
        raise ConfigError(f"hydra.sweeper.objectives: {folder} holds a search for {begun}; use another sweep_name")
    study.set_user_attr("objectives", dict(objectives))
    return study


def tell(study: optuna.Study, number: int, folder: Path, objectives: Mapping[str, str]) -> None:
    """Tell the study the outcome of a trial's cell. A failed cell is not told, so that the next attempt retries it.

    Raises:
        ConfigError: result.json lacks an objective.
    """
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if result["status"] == "pruned":
        study.tell(number, state=TrialState.PRUNED, skip_if_finished=True)
    elif result["status"] == "ok":
        study.tell(number, [number_at(result, name) for name in objectives], skip_if_finished=True)


def number_at(result: Mapping[str, Any], name: str) -> float:
    """The number under a dotted name of result.json, such as `metrics.token_f1` or `cross_attention.parameters`."""
    node: Any = result
    for part in name.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    if isinstance(node, bool) or not isinstance(node, int | float) or not math.isfinite(node):
        raise ConfigError(f"hydra.sweeper.objectives.{name}: result.json has no finite number there, but {node!r}")
    return float(node)


def show_best(study: optuna.Study, objectives: Mapping[str, str]) -> None:
    """Print the best trial, or the Pareto front where there are several objectives."""
    states = [trial.state for trial in study.trials]
    console.print(f"\n{states.count(TrialState.COMPLETE)} trials finished, {states.count(TrialState.PRUNED)} pruned")
    for trial in study.best_trials if TrialState.COMPLETE in states else []:
        values = dict(zip(objectives, trial.values, strict=True))
        console.print(f"  best: cell {trial.number}  {values}  {printable(str(trial.params))}", soft_wrap=True)


class PruningLogger(DummyLogger):
    """Reports a metric of a training stage to the trial, and ends the cell when most others did better at this step.

    It is a logger because loggers receive every metric and are not part of a stage's key.

    Args:
        trial: of the cell.
        metric: as logged, `finetune/val_loss`; lower is better.
    """

    def __init__(self, trial: optuna.Trial, metric: str) -> None:
        super().__init__()
        self.trial, self.metric = trial, metric
        self._reported = frozenset(trial.study.trials[trial.number].intermediate_values)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Report the metric; raises PrunedError where the trial is to be pruned."""
        if step is None or self.metric not in metrics:
            return
        value = float(metrics[self.metric])
        if step not in self._reported:  # a resumed stage repeats the measurements since its last checkpoint
            self.trial.report(value if self.trial.study.direction == StudyDirection.MINIMIZE else -value, step)
        if self.trial.should_prune():
            raise PrunedError(f"pruned at step {step}: {self.metric} was {value:.4f}, worse than most other cells")


def pruning_loggers(hydra: Any) -> list[Logger]:
    """The logger that prunes this cell, if it belongs to a search with pruning.

    Args:
        hydra: Hydra's own config of the job.
    """
    sweeper = hydra.sweeper
    if "lockdec_search" not in sweeper._target_ or not sweeper.prune or len(sweeper.objectives) > 1:
        return []  # several objectives give no order to prune by
    study = open_study(Path(hydra.runtime.output_dir).parent, sweeper.objectives)
    study.pruner = optuna.pruners.PercentilePruner(
        sweeper.keep, n_startup_trials=sweeper.warmup.trials, n_warmup_steps=sweeper.warmup.steps
    )
    trial = study.trials[hydra.job.num]
    return [] if trial.state.is_finished() else [PruningLogger(optuna.Trial(study, trial._trial_id), sweeper.prune)]
