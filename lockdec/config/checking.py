"""A composed config, checked before any work starts: its sections typed, its values in range and in agreement.

Sections that the cells of a sweep have in common are typed once. This module does not import torch: a finished sweep is
seen to be finished without it.
"""

from __future__ import annotations

import dataclasses
import math
import pickle  # for copies alone
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from lockdec.config.schema import Config, Section, config_folder, require_name
from lockdec.errors import ConfigError

MOST_SECTIONS = 256  # that are kept for the next cell of a sweep
SEEDS, MOST_SEED = ("seed", "support_seed", "split_seed"), 2**32 - 1  # the largest that numpy takes


def checked(config: DictConfig) -> Config:
    """What the stages share, as typed objects, its values in range and in agreement.

    Raises:
        ConfigError: names the key and what is allowed.
    """
    shared = [field.name for field in dataclasses.fields(Config)]
    _refuse_unknown_sections(config, shared)
    check_places(config)
    for name in map(str, config):
        if name != "stages":  # most of their values have shorter names elsewhere; `assemble` looks at the others
            refuse_numbers(name, plain(config[name], complete=name in shared))
    if not OmegaConf.is_dict(config.stages):
        raise ConfigError(f"stages={config.stages}: a stage has a name, and below it what it sees of the config")
    typed = Config(**{name: _as_object(config[name]) for name in shared})
    typed.decoder.check()
    typed.cross_attention.check()
    typed.fewshot.check()
    typed.tokenizer.check()
    typed.trainer.check()
    typed.logger.check()
    if not typed.pipeline.order:
        raise ConfigError(f"pipeline.order=[]: name at least one stage (there are: {', '.join(typed.stages)})")
    for name in typed.pipeline.order:
        require_name("pipeline.order", name)
        if name not in typed.stages:
            known = ", ".join(typed.stages)
            hint = f"; +stage={name} adds it" if name in _stage_options() else ""
            raise ConfigError(
                f"pipeline.order={list(typed.pipeline.order)}: no stage {name} (there are: {known}{hint})"
            )
    return typed


def check_places(config: DictConfig) -> None:
    """Raise ConfigError where `name`, `sweep_name` or `paths.outputs` can be no folder."""
    for key in ("name", "sweep_name"):
        require_name(key, config[key])
    outputs = str(config.paths.outputs)
    if not outputs.strip() or not outputs.isprintable():
        raise ConfigError(f"paths.outputs={outputs!r} has to name a folder")
    if outputs.partition("/")[0] == "~":  # on the command line it has been replaced
        raise ConfigError(f"paths.outputs={outputs}: write out the home folder; only a command line knows it as ~")


def with_sections(config: DictConfig, kinds: Mapping[str, type[Section]]) -> DictConfig:
    """The composed config with the types and the defaults of dataclasses in the sections of its stages.

    Args:
        kinds: the dataclass of each section, by its name.

    Raises:
        ConfigError: a section is not there; a key of it is not known; a value has the wrong type or is out of range.
    """
    merged: dict[str, DictConfig] = {}
    for name, kind in kinds.items():
        if not OmegaConf.is_dict(config.get(name)):
            raise ConfigError(
                f"{name}={config.get(name)}: the stage {name} reads this section; give it keys and values"
            )
        for inner, keys in _inner_sections(kind).items():  # OmegaConf refuses these too, but does not say which it was
            if inner in config[name] and not OmegaConf.is_dict(given := config[name][inner]):
                raise ConfigError(f"{name}.{inner}={given}: give values to its keys: {', '.join(keys)}")
        try:
            merged[name] = _merged(kind, repr(OmegaConf.to_container(config[name])), config[name])
        except (ConfigKeyError, ConfigAttributeError) as error:
            known = error.parent_node if isinstance(error.parent_node, DictConfig) else ()
            raise ConfigError(
                f"{name}.{error.full_key}: no such key (allowed: {', '.join(map(str, known))})"
            ) from error
        except OmegaConfBaseException as error:
            raise ConfigError(f"{name}.{error.full_key}: {str(error).splitlines()[0]}") from error
    typed = copied(config)
    with flag_override(typed, "no_deepcopy_set_nodes", True):
        for name, node in merged.items():
            typed[name] = copied(node)
    for name in kinds:
        section: Any = OmegaConf.to_object(typed[name])
        section.check()
    return typed


def copied(node: DictConfig) -> DictConfig:
    """A copy, as OmegaConf's own, in a third of the time; nothing is unpickled but what was pickled here."""
    copy: DictConfig = pickle.loads(pickle.dumps(node))
    return copy


@cache
def _structured(kind: type[Section]) -> DictConfig:
    node: DictConfig = OmegaConf.structured(kind)
    return node


_sections: dict[tuple[type[Section], str], DictConfig] = {}  # the latest, by their dataclass and values


def _merged(kind: type[Section], values: str, section: DictConfig) -> DictConfig:
    """A section with the types and defaults of its dataclass; those of equal values are merged once for all cells."""
    if (kind, values) not in _sections:
        node = _structured(kind).copy()
        node.merge_with(section)  # on its own: errors name keys within it, and no flag of the config counts
        while len(_sections) >= MOST_SECTIONS:
            del _sections[next(iter(_sections))]
        _sections[kind, values] = node
    return _sections[kind, values]


@cache
def _inner_sections(kind: type[Section]) -> dict[str, list[str]]:
    """The keys of each dataclass within one."""
    structured = _structured(kind)
    return {str(name): list(structured[name]) for name in structured if OmegaConf.is_dict(structured.get(name))}


def _as_object(node: Any) -> Any:
    """The dataclass that types a node; what no dataclass types stays a node, since resolving it takes long."""
    return OmegaConf.to_object(node) if dataclasses.is_dataclass(OmegaConf.get_type(node)) else node


def _refuse_unknown_sections(config: DictConfig, shared: Sequence[str]) -> None:
    """Raise ConfigError for a key that a file gave and nothing reads: most likely a name that was mistyped."""
    # Without its stage, a section has at most the few values that debug=tiny gives it.
    options = _stage_options()
    for name in map(str, config):
        if name not in shared and name not in options and name not in config.stages:
            known = sorted({*shared, *config.stages})
            raise ConfigError(f"{name}: no such key, nor a stage of this name (allowed: {', '.join(known)})")


def _stage_options() -> set[str]:
    """What `+stage=` may add to a config."""
    return {path.stem for path in (config_folder() / "stage").glob("*.yaml")}


def refuse_numbers(key: str, node: Any) -> None:
    """Raise ConfigError for a number below `key` that no library takes: not finite, beyond 64 bits, no seed."""
    for place, value in _leaves(key, node):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{place}={value} must be a finite number")
        if isinstance(value, int) and place.rpartition(".")[2] in SEEDS and not 0 <= value <= MOST_SEED:
            raise ConfigError(f"{place}={value} must be from 0 to {MOST_SEED}")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ConfigError(f"{place}={value} must fit into 64 bits")


def _leaves(key: str, node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _leaves(f"{key}.{name}", value)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _leaves(f"{key}[{index}]", value)
    else:
        yield key, node


def plain(node: Any, complete: bool = False) -> Any:
    """A config node as plain containers, interpolations resolved.

    Args:
        complete: whether each value has to be given; OmegaConf's MissingMandatoryValue where one is not.
    """
    if not OmegaConf.is_config(node):
        return node
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=complete)
