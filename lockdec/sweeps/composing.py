"""The config of each cell of a sweep, as Hydra's own sweeper will compose it, before any cell has started."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import compress
from operator import not_
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from lockdec.config.checking import copied


def cell_overrides(config: DictConfig, loader: ConfigLoader) -> list[list[str]]:
    """The overrides of each cell, in the order of the cells' numbers."""
    swept = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    parser = OverridesParser.create(config_loader=loader)
    overrides = parser.parse_overrides(swept + typed_overrides(config.hydra))
    return BasicSweeper.split_arguments(overrides, None)[0]


def compose_cells(config: DictConfig, loader: ConfigLoader, overrides: Sequence[Sequence[str]]) -> Iterator[DictConfig]:
    """The config of each cell, without Hydra's own node.

    Cells that choose the same groups are composed from files once; only their values are then set on a copy.

    Args:
        config: of the sweep.
        overrides: of each cell.
    """
    parser = OverridesParser.create(config_loader=loader)
    by_groups: dict[tuple[str, ...], DictConfig] = {}
    options = cache(loader.get_group_options)
    for cell in overrides:
        parsed = parser.parse_overrides(list(cell))
        is_group = [bool(options(one.key_or_group)) and not isinstance(one.value(), dict) for one in parsed]
        groups = tuple(compress(cell, is_group))
        if groups not in by_groups:
            composed = loader.load_sweep_config(config, list(groups))
            with open_dict(composed):
                composed.pop("hydra")
            by_groups[groups] = composed
        composed = copied(by_groups[groups])
        ConfigLoaderImpl._apply_overrides_to_config(list(compress(parsed, map(not_, is_group))), composed)
        yield composed


def typed_overrides(hydra: Any) -> list[str]:
    """The overrides as the user typed them, from Hydra's own config; `x=${y}` is not resolved."""
    return typing.cast(list[str], OmegaConf.to_container(OmegaConf.create(hydra.overrides.task), resolve=False))
