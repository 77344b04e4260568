"""What a stage's result follows from, and the artifact key that stands for it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import translate
from functools import cache
from typing import Any

from omegaconf import DictConfig, ListConfig

from lockdec.config.building import Builder
from lockdec.config.checking import plain
from lockdec.errors import ConfigError
from lockdec.redaction import redacted
from lockdec.stages.stage import Stage
from lockdec.store import artifact_key


def stage_class(config: DictConfig, name: str, builder: Builder) -> type[Stage]:
    """The class of a stage of the config, before anything is built.

    Raises:
        ConfigError: it names no stage, or one of another name.
    """
    key, node = f"stages.{name}", config.stages[name]
    path = node.get("_target_") if isinstance(node, DictConfig) else None
    if path is None:
        raise ConfigError(f"{key} must name a Stage by _target_")
    found = builder.locate(path, key, Stage)
    if not inspect.isclass(found) or not issubclass(found, Stage):
        raise ConfigError(f"{key}._target_={path} is not a Stage")
    if found.name != name:
        raise ConfigError(f"{key}._target_={path} is the stage {found.name}: configure it as stages.{found.name}")
    return found


def same_results(before: DictConfig | ListConfig, config: DictConfig) -> bool:
    """Whether the stages of a config that was read back are configured as those of this one, but for neutral keys.

    Other values of keys that are fingerprinted count as other results, since nothing here looks at their content.

    Raises:
        ConfigError: a stage of this config does not exist. Nothing that the other one names is imported.
    """
    return first_difference(before, config) is None


def first_difference(before: DictConfig | ListConfig, config: DictConfig) -> tuple[str, Any, Any] | None:
    """Where a config that was read back would give another result: the dotted key, the value there, and the one here.

    Raises:
        ConfigError: as `same_results`.
    """
    builder = Builder()
    neutral = {
        name: stage_class(config, name, builder).neutral for name in config.pipeline.order if name in config.stages
    }
    return _first_difference("stages", _decisive(before, neutral), redacted(_decisive(config, neutral)))


def _first_difference(key: str, before: Any, now: Any) -> tuple[str, Any, Any] | None:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys([*now, *before]):
            if found := _first_difference(f"{key}.{name}", before.get(name), now.get(name)):
                return found
        return None if before == now else (key, before, now)
    return None if before == now else (key, before, now)


def _decisive(config: DictConfig | ListConfig, neutral: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What a run's results follow from: the config of each of its stages, without what changes no result."""
    return {
        name: without(redacted(plain(config.stages[name])), neutral.get(name, ())) for name in config.pipeline.order
    }


def parents_of(stages: Mapping[str, Stage]) -> dict[str, tuple[str, ...]]:
    """The names of the parents of each stage of a pipeline."""
    parents: dict[str, tuple[str, ...]] = {}
    before: dict[str, Stage] = {}
    for name, stage in stages.items():
        parents[name] = stage.parents(before)
        before[name] = stage
    return parents


def stage_keys(stages: Mapping[str, Stage], subtrees: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The artifact key of every stage, from config and content alone."""
    keys: dict[str, str] = {}
    parents = parents_of(stages)
    for name, stage in stages.items():
        keys[name] = artifact_key(
            stage=name,
            version=stage.version,
            config=without(subtrees[name], (*stage.neutral, *stage.fingerprinted)),
            parents={parent: keys[parent] for parent in parents[name]},
            fingerprints=stage.fingerprints(),
        )
    return keys


def without(node: Mapping[str, Any], patterns: Sequence[str], path: str = "") -> dict[str, Any]:
    """The node, which stands at the dotted `path`, without the keys that match.

    Args:
        patterns: of dotted paths, of `path=value` for texts, numbers and truth values, and of `path is null`.
    """
    matches, left = _matcher(tuple(patterns)), dict[str, Any]()
    for name, value in node.items():
        place = f"{path}.{name}" if path else name
        places = [place]
        if isinstance(value, str | int | float | None):
            places += [f"{place}={value}"]
        if value is None:  # which no text looks like
            places += [f"{place} is null"]
        if not any(map(matches, places)):
            left[name] = without(value, patterns, place) if isinstance(value, Mapping) else value
    return left


@cache
def _matcher(patterns: tuple[str, ...]) -> Callable[[str], object]:
    """Whether a text matches one of the patterns, which are those of `fnmatch`."""
    return re.compile("|".join(map(translate, patterns)) or r"(?!)").match
