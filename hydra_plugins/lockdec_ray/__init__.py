"""`hydra/launcher=ray`: runs the cells of a sweep as tasks of a Ray cluster, which it starts if there is none.

A launcher of our own, because hydra-ray-launcher needs the clients of AWS, the dashboard of Ray and an old cloudpickle.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class RayLauncher(Launcher):
    """Runs cells on Ray.

    Args:
        address: of a running cluster ("auto" finds one on this machine); None starts one on this machine, some of whose
            ports are visible on the network.
        num_cpus: cores of the cluster that is started; None for all.
        cpus_per_cell, gpus_per_cell: what each cell reserves, which decides how many run at a time.
    """

    def __init__(self, address: str | None, num_cpus: int | None, cpus_per_cell: float, gpus_per_cell: float) -> None:
        self.address, self.num_cpus = address, num_cpus
        self.resources = {"num_cpus": cpus_per_cell, "num_gpus": gpus_per_cell}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        # Read by the import of Ray: no usage statistics are sent, and no code is copied to workers.
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
        import ray
        from ray import cloudpickle

        setup_globals()
        own = {"num_cpus": self.num_cpus, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        ray.init(
            address=self.address or "local",
            log_to_driver=False,
            logging_level="error",
            runtime_env={"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}},
            **({} if self.address else own),
        )
        try:
            # A cell that fails records it in its result.json; any other exception of a worker ends the sweep.
            cell = ray.remote(**self.resources, max_retries=0)(_run_cell)
            task = cloudpickle.dumps((self.hydra_context, self.task_function, Singleton.get_state()))
            waiting = [
                cell.remote(task, self._cell_config(initial_job_idx + number, overrides), os.getcwd())
                for number, overrides in enumerate(job_overrides)
            ]
            return [pickle.loads(done) for done in ray.get(waiting)]
        finally:
            ray.shutdown()

    def _cell_config(self, number: int, overrides: Sequence[str]) -> DictConfig:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = f"{config.hydra.job.name}_{number}", number
        return config


def _run_cell(task: bytes, config: DictConfig, folder: str) -> Any:
    from ray import cloudpickle

    os.chdir(folder)
    setup_globals()
    hydra_context, task_function, singletons = pickle.loads(task)
    Singleton.set_state(singletons)
    done = run_job(
        hydra_context=hydra_context,
        task_function=task_function,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    return cloudpickle.dumps(done)
