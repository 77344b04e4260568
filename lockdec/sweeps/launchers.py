"""What each of Hydra's launchers does with the cells of a sweep: how many run side by side, and on which machine."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig

from lockdec.distributed import ranks
from lockdec.errors import ConfigError


def require_launcher(config: DictConfig) -> None:
    """Raise ConfigError where an option by which a launcher runs cells side by side is out of range."""
    launcher = config.hydra.launcher
    if (jobs := launcher.get("n_jobs")) is not None and jobs == 0:
        raise ConfigError("hydra.launcher.n_jobs=0: give a number of cells side by side; -1 is one for each core")
    if "submitit" in launcher._target_ and (most := config.hydra.sweeper.get("max_batch_size")) is not None:
        require_whole("hydra.sweeper.max_batch_size", most, 1)
    if launcher._target_.endswith(".RayLauncher"):
        for name in ("num_cpus", "cpus_per_cell"):
            value = launcher.get(name)
            if name == "num_cpus" and value is None:
                continue
            if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
                raise ConfigError(f"hydra.launcher.{name}={value} must be a number above 0")


def require_whole(key: str, value: object, least: int, most: int | None = None) -> None:
    """Raise ConfigError unless a value is a whole number in this range."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(f"{key}={value} must be a whole number {limits}")


def cells_at_once(config: DictConfig, cells: int) -> int:
    """How many of the cells the chosen launcher runs side by side; 1 for Hydra's own."""
    launcher, sweeper = config.hydra.launcher, config.hydra.sweeper
    jobs = launcher.get("n_jobs")  # of joblib: -1 is one for each core
    if jobs is None and "submitit" in launcher._target_:
        jobs = sweeper.get("max_batch_size") or cells  # it submits all of them
    if launcher._target_.endswith(".RayLauncher") and not launcher.address:  # the size of a cluster is not known yet
        jobs = int((launcher.num_cpus or os.cpu_count() or 1) // launcher.cpus_per_cell)
    if jobs is not None and jobs < 0:
        jobs = (os.cpu_count() or 1) + 1 + jobs
    return max(1, jobs or 1)


def guard_pickles(config: DictConfig) -> None:
    """Make the folder in which submitit keeps its pickles readable for the user alone: they hold the whole config."""
    if folder := _pickles(config):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)


def remove_pickles(config: DictConfig) -> None:
    """Remove submitit's pickles when their sweep has ended; its logs stay."""
    for path in folder.rglob("*.pkl") if (folder := _pickles(config)) else ():
        path.unlink(missing_ok=True)


def remove_own_pickle(config: DictConfig) -> None:
    """Remove the pickle that this process was started from, if submitit has started it: no other needs it."""
    if _pickles(config):
        import submitit

        submitit.JobEnvironment().paths.submitted_pickle.unlink(missing_ok=True)


def _pickles(config: DictConfig) -> Path | None:
    """The folder below which submitit keeps pickles and logs; None with another launcher."""
    if "submitit" not in config.hydra.launcher._target_:
        return None
    folder = Path(config.hydra.launcher.submitit_folder)
    return folder.parent if "%" in folder.name else folder


def shares_cores(config: DictConfig) -> bool:
    """Whether cells that run at once do so in processes of this machine, so that each has a part of its cores.

    Not with Ray, which may hand cells to other machines.
    """
    alone = ranks.started().world == 1 and config.trainer.strategy == "auto"
    return bool(alone and config.hydra.launcher._target_.endswith((".JoblibLauncher", ".LocalLauncher")))
