"""Which launchers run several cells at once on this machine."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir

from lockdec.config.schema import config_folder, register
from lockdec.errors import ConfigError
from lockdec.sweeps.launchers import cells_at_once, require_launcher, shares_cores


@pytest.mark.parametrize(
    ("overrides", "answer"),
    [
        (("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), True),
        (("hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2"), True),
        (("hydra/launcher=submitit_slurm", "hydra.sweeper.max_batch_size=2"), False),
        (("hydra/launcher=ray", "hydra.launcher.num_cpus=2"), False),
        (("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "trainer.strategy=ddp"), False),
        ((), False),
    ],
)
def test_only_cells_of_one_machine_share_its_cores(overrides: tuple[str, ...], answer: bool) -> None:
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    assert shares_cores(config) is answer


@pytest.mark.parametrize(
    ("overrides", "cells"),
    [
        ((), 1),
        (("hydra/launcher=joblib", "hydra.launcher.n_jobs=3"), 3),
        (("hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2"), 2),
        (("hydra/launcher=submitit_local",), 7),
        (("hydra/launcher=ray", "hydra.launcher.num_cpus=6", "hydra.launcher.cpus_per_cell=2"), 3),
        (("hydra/launcher=ray", "hydra.launcher.address=auto"), 1),
    ],
)
def test_launchers_run_as_many_cells_at_once_as_they_are_told(overrides: tuple[str, ...], cells: int) -> None:
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    assert cells_at_once(config, 7) == cells


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("hydra/launcher=joblib", "hydra.launcher.n_jobs=0"), r"^hydra\.launcher\.n_jobs=0: give a number of cells"),
        (
            ("hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=0"),
            r"^hydra\.sweeper\.max_batch_size=0 must be a whole number of at least 1$",
        ),
        (
            ("hydra/launcher=ray", "hydra.launcher.cpus_per_cell=0"),
            r"^hydra\.launcher\.cpus_per_cell=0 must be a number above 0$",
        ),
        (
            ("hydra/launcher=ray", "hydra.launcher.num_cpus=x"),
            r"^hydra\.launcher\.num_cpus=x must be a number above 0$",
        ),
    ],
)
def test_a_launcher_without_cells_side_by_side_is_refused(overrides: tuple[str, ...], message: str) -> None:
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    with pytest.raises(ConfigError, match=message):
        require_launcher(config)
