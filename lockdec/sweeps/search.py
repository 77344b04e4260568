"""A search on disk: Optuna's study, as a journal in the sweep's folder, and the outcomes of its trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from lightning.pytorch.loggers.logger import DummyLogger, Logger
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection
from optuna.trial import TrialState

from lockdec.console import console, printable
from lockdec.errors import ConfigError, PrunedError, StoreError
from lockdec.pipeline.keys import first_difference
from lockdec.store.reading import CONFIG, RESULT, from_json, read_bytes, read_config, read_object
from lockdec.store.writing import write_bytes

WAYS = ("maximize", "minimize")
JOURNAL, NAME = "search.journal", "search"  # of the study
MOST_JOURNAL_BYTES = 256_000_000  # a trial takes a few kilobytes
RECORD = b'{"op_code":'  # how each record of the journal begins


def begin(folder: Path, objectives: Mapping[str, str], space: Mapping[str, BaseDistribution]) -> optuna.Study:
    """The study in a sweep's folder at the start of an attempt, mended where an earlier one was killed.

    Nothing is written before it is known that the attempt fits the study.

    Raises:
        ConfigError, StoreError: as `open_study`.
    """
    if (journal := folder / JOURNAL).is_file():
        mend(journal)
    return open_study(folder, objectives, space)


def require_settings(study: optuna.Study, folder: Path, cell: Callable[[Mapping[str, Any]], DictConfig]) -> None:
    """Raise ConfigError where the trials that count were made with other settings than those that would follow.

    Args:
        folder: of the sweep.
        cell: composes the config of a trial with these values.
    """
    for trial in study.trials:
        if not trial.state.is_finished():
            continue
        try:
            before = OmegaConf.create(read_config(folder / str(trial.number) / CONFIG))
        except StoreError:
            continue
        if found := first_difference(before, cell(trial.params)):
            key, was, now = found
            raise ConfigError(
                f"{key}={now}: the search in {folder} has {was} there; the same command continues it, and another "
                "sweep_name begins a new one"
            )
        return


def complete(study: optuna.Study, space: Mapping[str, BaseDistribution]) -> None:
    """Choose what an unfinished trial lacks, because the process was killed while it wrote down the trial."""
    for trial in study.trials:
        if not trial.state.is_finished() and (missing := space.keys() - trial.params.keys()):
            begun = optuna.Trial(study, trial._trial_id)
            for name in sorted(missing):
                begun._suggest(name, space[name])


def mend(journal: Path) -> None:
    """Drop half a record where a kill has left one: in the last line, or in front of what was written after it."""
    lock = JournalFileSymlinkLock(str(journal))
    lock.acquire()  # a cell of an earlier attempt may still be writing
    try:
        content = read_bytes(journal, MOST_JOURNAL_BYTES)
        lines = [_without_half(line) for line in content.split(b"\n")[:-1]]
        if (mended := b"".join(line + b"\n" for line in lines)) != content:
            write_bytes(journal, mended)
    finally:
        lock.release()


def _without_half(line: bytes) -> bytes:
    whole = line[max(0, line.rfind(RECORD)) :]
    try:
        from_json(whole.decode())
    except ValueError:
        return line  # damaged in another way, which `open_study` reports
    return whole


def open_study(
    folder: Path, objectives: Mapping[str, str], space: Mapping[str, BaseDistribution] | None = None
) -> optuna.Study:
    """The study in a sweep's folder, created where there is none.

    Args:
        space: what it chooses among; None for a study that is there.

    Raises:
        ConfigError: the direction of an objective is unknown, or the study has other objectives or another space.
        StoreError: the journal is damaged.
    """
    if wrong := [f"{name}={way}" for name, way in objectives.items() if way not in WAYS]:
        raise ConfigError(f"hydra.sweeper.objectives.{wrong[0]} is not one of: {', '.join(WAYS)}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
        names = [summary.study_name for summary in storage.get_all_studies()]
    except (ValueError, KeyError) as error:
        raise StoreError(f"{folder / JOURNAL}: damaged ({error}); use another sweep_name") from error
    if NAME in names:
        study = optuna.load_study(storage=storage, study_name=NAME)
        if (begun := study.user_attrs.get("objectives", dict(objectives))) != dict(objectives):
            raise ConfigError(f"hydra.sweeper.objectives: {folder} holds a search for {begun}; use another sweep_name")
        if space is not None:
            _require_space(study, space, folder)
        return study
    directions = [StudyDirection[way.upper()] for way in objectives.values()]
    study = optuna.create_study(storage=storage, study_name=NAME, directions=directions)
    study.set_user_attr("objectives", dict(objectives))
    study.set_user_attr("space", {name: distribution_to_json(choices) for name, choices in (space or {}).items()})
    return study


def _require_space(study: optuna.Study, space: Mapping[str, BaseDistribution], folder: Path) -> None:
    """Raise ConfigError unless the study chooses among the same values; the trials of an older one tell."""
    begun: dict[str, BaseDistribution] = {}
    for trial in study.trials:
        begun |= trial.distributions
    begun |= {name: json_to_distribution(text) for name, text in study.user_attrs.get("space", {}).items()}
    for name in dict.fromkeys([*begun, *space]) if begun else ():
        if begun.get(name) != space.get(name):
            was, now = (_shown(choices.get(name)) for choices in (begun, space))
            raise ConfigError(
                f"{name}: the search in {folder} chooses {was}, not {now}; the same command continues it "
                "(with more hydra.sweeper.trials), and another sweep_name begins a new one"
            )


def _shown(choices: BaseDistribution | None) -> str:
    if choices is None:
        return "nothing there"
    if isinstance(choices, CategoricalDistribution):
        return "among " + ",".join(map(str, choices.choices))
    assert isinstance(choices, IntDistribution | FloatDistribution)
    return f"from {choices.low} to {choices.high}" + (" by its logarithm" if choices.log else "")


def tell(study: optuna.Study, number: int, folder: Path, objectives: Mapping[str, str]) -> None:
    """Tell the study the outcome of a trial's cell. A failed cell is not told, so that the next attempt retries it.

    Raises:
        ConfigError: result.json lacks an objective.
    """
    try:
        result = read_object(folder / RESULT)
    except StoreError:
        return
    if result.get("status") == "pruned":
        study.tell(number, state=TrialState.PRUNED, skip_if_finished=True)
    elif result.get("status") == "ok":
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
        values = _listed(dict(zip(objectives, trial.values, strict=True)))
        console.print(f"  best: cell {trial.number}  {values}  {printable(_listed(trial.params))}", soft_wrap=True)


def _listed(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
                    for name, value in values.items())  # fmt: skip


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
