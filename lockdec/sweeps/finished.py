"""Whether a cell of a sweep is finished; imports torch only where a cell's config is not the very same as before."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lockdec.config.checking import plain
from lockdec.errors import ConfigError, StoreError
from lockdec.redaction import redacted
from lockdec.store.reading import CONFIG, RESULT, read_config, read_object


def finished_cell(config: DictConfig, folder: Path) -> dict[str, Any] | None:
    """The result of an earlier attempt if it is `ok`, and its config gives the same results with today's code."""
    result, before = earlier(folder)
    if result is None or _surely_finished(config, result, before):
        return result
    from lockdec.config.building import Builder
    from lockdec.pipeline.keys import same_results, stage_class  # here, since it imports torch

    try:
        today = {name: stage_class(config, name, Builder()).version for name in config.pipeline.order}
        made_by = {name: version for name, version in _versions(result).items() if version is not None}
        same = today | made_by == today and same_results(OmegaConf.create(before), config)
        return result if same else None
    except (ConfigError, OmegaConfBaseException):
        return None


def surely_finished(config: DictConfig, folder: Path) -> bool:
    """Whether an earlier attempt is `ok` and had this very config and code; False does not say it is unfinished."""
    result, before = earlier(folder)
    return result is not None and _surely_finished(config, result, before)


def _surely_finished(config: DictConfig, result: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    versions = _versions(result)
    return before == written(config) and all(
        versions.get(name) == declared_version(config.stages[name].get("_target_")) is not None
        for name in config.pipeline.order
    )


def _versions(result: Mapping[str, Any]) -> dict[str, Any]:
    """The version of the code that made each stage of a result; None where an older lockdec does not say."""
    stages = result.get("stages")
    entries = stages.items() if isinstance(stages, Mapping) else ()
    return {name: entry.get("version") for name, entry in entries if isinstance(entry, Mapping)}


@cache
def declared_version(target: str) -> int | None:
    """The `version` that the source of one of lockdec's stages declares: importing the class would import torch.

    None where the class is no stage of lockdec's own.
    """
    module, _, kind = target.rpartition(".")
    package, _, name = module.rpartition(".")
    path = Path(__file__).parents[1] / "stages" / f"{name}.py"
    if package != "lockdec.stages" or not path.is_file():
        return None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return _declared({node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}, kind)


def _declared(classes: Mapping[str, ast.ClassDef], kind: str) -> int | None:
    """The version that a class declares, or one that it extends."""
    if kind not in classes:
        return None
    for field in classes[kind].body:
        if isinstance(field, ast.AnnAssign) and ast.unparse(field.target) == "version":
            version = field.value.value if isinstance(field.value, ast.Constant) else None
            return version if isinstance(version, int) else None
    return next(filter(None, (_declared(classes, ast.unparse(base)) for base in classes[kind].bases)), None)


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
