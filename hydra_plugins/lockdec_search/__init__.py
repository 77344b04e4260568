"""`hydra/sweeper=optuna`: Optuna suggests cells, the launcher runs them, their result.json is the answer.

The study is a journal in the folder of the sweep, and trial n is cell n. A trial without a result, because its cell
failed or was killed, is run again with the same values before new ones are suggested. Hydra loads sweepers only from
the namespace `hydra_plugins`, and at every start; so optuna is imported only when a search runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution


class OptunaSweeper(Sweeper):
    """Searches for the cells with the best values in result.json.

    Args:
        trials: the total number of cells, including those of earlier attempts.
        jobs: cells suggested at a time; as many as the launcher runs in parallel.
        objectives: maximize or minimize, by the dotted name of a number in result.json; several give a Pareto front.
        prune: the metric by which cells are compared during training, lower is better; None for no pruning.
        keep: a cell is pruned unless it is among the best so many percent of the finished cells.
        warmup: how many trials have to finish, and how many steps have to pass, before a cell is pruned.
        seed: of the sampler.
        params: the search space, in Hydra's syntax: choice(1,2,4), range(1,9), interval(0.1,0.5),
            tag(log,interval(1e-4,1e-2)).
    """

    def __init__(
        self, trials: int, jobs: int, objectives: Mapping[str, str], seed: int, params: Mapping[str, str], **_: object
    ) -> None:  # the rest is read by the cells: lockdec.sweeps.search.pruning_loggers
        self.trials, self.jobs, self.objectives, self.seed, self.params = trials, jobs, objectives, seed, params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.config, self.config_loader = config, hydra_context.config_loader
        self.folder = Path(config.hydra.sweep.dir)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Ask, run and tell until there are `trials` trials."""
        from optuna.samplers import TPESampler

        from lockdec.errors import ConfigError
        from lockdec.redaction import is_secret
        from lockdec.sweeps.composing import compose_cells
        from lockdec.sweeps.search import begin, complete, require_settings, show_best

        given = [f"{key}={value}" for key, value in self.params.items()] + arguments
        parsed = OverridesParser.create(config_loader=self.config_loader).parse_overrides(given)
        last = {override.get_key_element(): override for override in parsed}  # the command line comes after `params`
        fixed = [f"{key}={o.get_value_element_as_str()}" for key, o in last.items() if not o.is_sweep_override()]
        space = {key: distribution(override) for key, override in last.items() if override.is_sweep_override()}
        if secret := [key for key in space if is_secret(key)]:
            raise ConfigError(f"{secret[0]} is a secret, which a search cannot choose")
        study = begin(self.folder, self.objectives, space)
        assert self.config is not None
        whole, loader = self.config, self.config_loader
        require_settings(
            study, self.folder, lambda values: next(compose_cells(whole, loader, [_overrides(fixed, values)]))
        )
        study.sampler = TPESampler(seed=self.seed + len(study.trials), constant_liar=self.jobs > 1)
        complete(study, space)
        self._run(study, [trial.number for trial in study.trials if not trial.state.is_finished()], fixed)
        while (left := self.trials - len(study.trials)) > 0:
            self._run(study, [study.ask(space).number for _ in range(min(self.jobs, left))], fixed)
        show_best(study, self.objectives)

    def _run(self, study: Study, numbers: Sequence[int], fixed: Sequence[str]) -> None:
        from lockdec.sweeps.search import tell

        params = {trial.number: trial.params for trial in study.trials}
        # A launcher numbers its cells from the first one on.
        for _, group in groupby(enumerate(numbers), key=lambda placed: placed[1] - placed[0]):
            row = [number for _, number in group]
            cells = [_overrides(fixed, params[number]) for number in row]
            assert self.launcher is not None
            self.launcher.launch(cells, initial_job_idx=row[0])
            for number in row:
                tell(study, number, self.folder / str(number), self.objectives)


def _overrides(fixed: Sequence[str], values: Mapping[str, object]) -> list[str]:
    """Those of a cell with these values."""
    return [*fixed, *(f"{key}={value}" for key, value in values.items())]


def distribution(override: Override) -> BaseDistribution:
    """The Optuna distribution of an override that is a choice, a range or an interval.

    Raises:
        ConfigError: it holds no value, or its values have no logarithm.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    from lockdec.errors import ConfigError

    value = override.value()
    try:
        if isinstance(value, IntervalSweep):
            assert value.start is not None
            assert value.end is not None
            return FloatDistribution(value.start, value.end, log="log" in value.tags)
        if isinstance(value, RangeSweep) and isinstance(numbers := value.range(), range):
            return IntDistribution(numbers[0], numbers[-1], step=numbers.step)
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except (ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{override.input_line}: nothing to choose from ({reason})") from error
