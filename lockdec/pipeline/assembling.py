"""The stages of a run, built and checked, with their keys, before any of them works."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lockdec.config.building import Builder
from lockdec.config.checking import checked, plain, refuse_numbers, with_sections
from lockdec.config.schema import Config, ImportedDecoderConfig
from lockdec.errors import ConfigError
from lockdec.pipeline.keys import parents_of, stage_class, stage_keys
from lockdec.stages.stage import Stage
from lockdec.stages.training_stage import TrainingStage


@dataclass(frozen=True)
class Assembly:
    """The stages of a run, before any of them works.

    Attributes:
        config: of the run, checked.
        subtrees: the config of each stage and the names of its parents, in the order of the pipeline.
        stages: built and checked.
        keys: of their artifacts.
    """

    config: Config
    subtrees: Mapping[str, Mapping[str, Any]]
    stages: Mapping[str, Stage]
    keys: Mapping[str, str]


def assemble(config: DictConfig, builder: Builder) -> Assembly:
    """Check the config, build its stages and compute their keys; nothing is written.

    Args:
        config: composed by Hydra, without its own node.
        builder: keeps what it has built, such as data, for the next cell of a sweep.

    Raises:
        ConfigError, DataError: the run cannot work.
    """
    typed, subtrees = checked_subtrees(config, builder)
    try:
        stages = build_stages(subtrees, builder)
    except ConfigError as error:
        raise ConfigError(_as_typed(str(error), config)) from error
    parents = parents_of(stages)
    subtrees = {name: {**subtree, "parents": list(parents[name])} for name, subtree in subtrees.items()}
    return Assembly(typed, subtrees, stages, stage_keys(stages, subtrees))


def checked_subtrees(config: DictConfig, builder: Builder) -> tuple[Config, dict[str, dict[str, Any]]]:
    """The config as typed objects, and what each stage of the pipeline sees of it, sections checked.

    Raises:
        ConfigError: names the key and what is allowed.
    """
    typed = checked(config)
    sections = {name: stage_class(config, name, builder).section for name in typed.pipeline.order}
    config = with_sections(config, {name: section for name, section in sections.items() if section is not None})
    longest, room = OmegaConf.select(config, "evaluate.max_new_tokens"), typed.decoder.max_len
    if "evaluate" in sections and not isinstance(typed.decoder, ImportedDecoderConfig) and longest > room:
        raise ConfigError(f"evaluate.max_new_tokens={longest}: the decoder has room for {room} tokens "
                          "(decoder.max_len)")  # fmt: skip
    subtrees = {name: plain(config.stages[name], complete=True) for name in typed.pipeline.order}
    refuse_numbers("stages", subtrees)
    return typed, subtrees


def _as_typed(message: str, config: DictConfig) -> str:
    """The message with the keys that users type, of which a stage's subtree only repeats the values."""
    for name in config.pipeline.order:
        subtree = OmegaConf.to_container(config.stages[name], resolve=False)
        for key, typed in _repeated(f"stages.{name}", subtree):
            message = re.sub(rf"\b{re.escape(key)}\b", typed, message)
    return message


def _repeated(path: str, node: Any) -> Iterator[tuple[str, str]]:
    """The dotted paths below this one whose value is another key's, with that key."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _repeated(f"{path}.{name}", value)
    elif isinstance(node, str) and (found := re.fullmatch(r"\$\{([\w.]+)\}", node)):
        yield path, found[1]


def build_stages(subtrees: Mapping[str, Mapping[str, Any]], builder: Builder) -> dict[str, Stage]:
    """The stages, checked, before any of them works.

    Raises:
        ConfigError: a stage's config is wrong, or a parent of it does not come before it.
    """
    stages: dict[str, Stage] = {}
    for name, subtree in subtrees.items():
        stage = builder.build(subtree, f"stages.{name}", Stage)
        if isinstance(stage, TrainingStage):
            builder.forget(*stage.callbacks.values())  # a callback that counts or compares starts anew in each stage
        for parent in stage.parents(stages):
            if parent not in stages:
                raise ConfigError(f"pipeline.order={list(subtrees)}: {name} needs {parent} before it")
        stage.check()
        stage.check_after(stages)
        stages[name] = stage
    return stages
