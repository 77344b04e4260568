"""What a stage's result follows from, and the artifact key that stands for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, ListConfig

from lockdec.config.schema import plain
from lockdec.redaction import redacted
from lockdec.stages.stage import Stage
from lockdec.store import artifact_key

# What the stages see that cannot change what they produce, and so is no part of their keys.
CANNOT_CHANGE_RESULT = (
    "attach.batch_size",  # an encoder's outputs do not depend on the batch: tested for every encoder
    "*.trainer.accelerator",
    "*.trainer.devices",
    "*.trainer.strategy",  # of any number of ranks, each takes its share of the same batches
    "*.trainer.threads",
    "*.trainer.checkpoint_seconds",
    "*.trainer.on_nan=stop",  # what a stage is without it; where it stops, there is no result
    "*.trainer.compile=False",  # what a stage is without it; compiled, it draws other dropout
    "*.fit.optimizer.kind=adamw",  # what a stage is without it
    "*.data.cache",
)


def decisive(config: DictConfig | ListConfig) -> dict[str, Any]:
    """What a run's results follow from: the config of each of its stages, without what changes no result."""
    return {
        name: without(redacted(plain(config.stages[name])), CANNOT_CHANGE_RESULT, name)
        for name in config.pipeline.order
    }


def stage_keys(stages: Mapping[str, Stage], subtrees: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The artifact key of every stage, from config and content alone."""
    keys: dict[str, str] = {}
    for name, stage in stages.items():
        keys[name] = artifact_key(
            stage=name,
            version=stage.version,
            config=without(subtrees[name], CANNOT_CHANGE_RESULT, name),
            parents={parent: keys[parent] for parent in stage.parents},
            fingerprints=stage.fingerprints(),
        )
    return keys


def without(node: Mapping[str, Any], patterns: Sequence[str], path: str) -> dict[str, Any]:
    """The node, which stands at the dotted `path`, without the keys whose dotted path, or path=value, matches."""
    return {
        name: without(value, patterns, f"{path}.{name}") if isinstance(value, Mapping) else value
        for name, value in node.items()
        if not any(fnmatchcase(place, pattern) for pattern in patterns for place in _places(path, name, value))
    }


def _places(path: str, name: str, value: Any) -> tuple[str, ...]:
    return (f"{path}.{name}", f"{path}.{name}={value}") if isinstance(value, str | bool) else (f"{path}.{name}",)
