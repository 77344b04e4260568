"""Hydra's own sweeper, but for the `multirun.yaml` that it writes before the first cell: there without secrets.

`lockdec.sweeps.callback` puts it in the place of Hydra's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import DictConfig, OmegaConf

from lockdec.redaction import redacted


class CellSweeper(BasicSweeper):
    """Runs every combination of the overrides."""

    def sweep(self, arguments: list[str]) -> Any:
        """Called by Hydra; writes `self.config` to the sweep's folder before the cells are checked and launched."""
        assert self.config is not None
        self._whole, self.config = self.config, _safe(self.config)
        return super().sweep(arguments)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Called by Hydra for each batch, after it has written the file."""
        self.config = self._whole
        super().validate_batch_is_legal(batch)


def _safe(config: DictConfig) -> DictConfig:
    safe: DictConfig = OmegaConf.create(redacted(OmegaConf.to_container(config, resolve=False)))
    safe.hydra.sweep.dir = config.hydra.sweep.dir  # where the file goes
    return safe
