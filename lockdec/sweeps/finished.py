"""Whether a cell of a sweep is finished; imports torch only where a cell's config is not the very same as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lockdec.config.schema import plain
from lockdec.errors import ConfigError, StoreError
from lockdec.redaction import redacted
from lockdec.store.reading import CONFIG, RESULT, read_config, read_object


def finished_cell(config: DictConfig, folder: Path) -> dict[str, Any] | None:
    """The result of an earlier attempt if it is `ok` and its config gives the same results."""
    result, before = earlier(folder)
    if result is None or before == written(config):
        return result
    from lockdec.pipeline.keys import same_results  # here, since it imports torch

    try:
        return result if same_results(OmegaConf.create(before), config) else None
    except (ConfigError, OmegaConfBaseException):
        return None


def surely_finished(config: DictConfig, folder: Path) -> bool:
    """Whether an earlier attempt is `ok` and had this very config; False does not say that it is unfinished."""
    result, before = earlier(folder)
    return result is not None and before == written(config)


def earlier(folder: Path) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The result of an earlier attempt and its config; None and nothing unless it is `ok`."""
    try:
        result = read_object(folder / RESULT)
        if result.get("status") == "ok":
            return result, read_config(folder / CONFIG)
    except StoreError:
        pass
    return None, {}


def written(config: DictConfig) -> dict[str, Any]:
    """The config of a run as its config.yaml has it: resolved, and without secrets."""
    safe: dict[str, Any] = redacted(plain(config))
    return safe
