"""Hydra's own sweeper, but for two things: it writes `multirun.yaml` without secrets, and launches no finished cells
before the first that is not.

`lockdec.sweeps.callback` puts it in the place of Hydra's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import DictConfig, OmegaConf

from lockdec.redaction import redacted
from lockdec.sweeps.callback import finished_first


class CellSweeper(BasicSweeper):
    """Runs every combination of the overrides."""

    def sweep(self, arguments: list[str]) -> Any:
        """Called by Hydra; writes `self.config` to the sweep's folder before the cells are checked and launched."""
        assert self.config is not None
        self._whole, self.config = self.config, _safe(self.config)
        remaining: Any = _Remaining(self.launcher, finished_first())
        self.launcher = remaining
        return super().sweep(arguments)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Called by Hydra for each batch, after it has written the file."""
        self.config = self._whole
        before = sum(map(len, (self.overrides or [])[: self.batch_index - 1]))
        super().validate_batch_is_legal(batch[max(0, finished_first() - before) :])


class _Remaining:
    """A launcher that is given all cells and starts none of the first ones, which are finished."""

    def __init__(self, launcher: Any, finished: int) -> None:
        self.launcher, self.finished = launcher, finished

    def launch(self, batch: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        """Called by Hydra for each batch."""
        left = batch[max(0, self.finished - initial_job_idx) :]
        return self.launcher.launch(left, initial_job_idx + len(batch) - len(left)) if left else []


def _safe(config: DictConfig) -> DictConfig:
    safe: DictConfig = OmegaConf.create(redacted(OmegaConf.to_container(config, resolve=False)))
    safe.hydra.sweep.dir = config.hydra.sweep.dir  # where the file goes
    return safe
