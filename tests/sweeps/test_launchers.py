"""Which launchers run several cells at once on this machine."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir

from lockdec.config.schema import config_folder, register
from lockdec.sweeps.launchers import cells_at_once, share_cores


@pytest.mark.parametrize(
    ("overrides", "answer"),
    [
        (("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), True),
        (("hydra/launcher=joblib", "hydra.launcher.n_jobs=1"), False),
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
    assert share_cores(config) is answer


@pytest.mark.parametrize(
    ("overrides", "cells"),
    [
        ((), 1),
        (("hydra/launcher=joblib", "hydra.launcher.n_jobs=3"), 3),
        (("hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2"), 2),
        (("hydra/launcher=ray", "hydra.launcher.num_cpus=6", "hydra.launcher.cpus_per_cell=2"), 3),
        (("hydra/launcher=ray", "hydra.launcher.address=auto"), 1),
    ],
)
def test_launchers_run_as_many_cells_at_once_as_they_are_told(overrides: tuple[str, ...], cells: int) -> None:
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    assert cells_at_once(config) == cells
