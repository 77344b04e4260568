"""The folders of runs and cells: no two get the same one, even if they start within one second."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from lockdec.distributed import ranks
from lockdec.errors import ConfigError, StoreError
from lockdec.store.reading import CONFIG, LONGEST_NAME, RESULT, is_name, read_object

BY_NUMBER = "${hydra.job.num}"
_BY_CLOCK = re.compile(r"\$\{now:[^}]*\}$")

_made: list[Path] = []  # by this process for its run, innermost first


def claim_run_folder(config: DictConfig) -> None:
    """Make the folder of a single run and set `hydra.run.dir` to it.

    A folder that is named after the time is this run's alone: others of the same second get a number behind theirs. One
    that the user names may be there already. All ranks of a job share the folder of the first: the others
    get a temporary one, which `lockdec.pipeline.following` removes.

    Raises:
        ConfigError: it cannot be made.
    """
    raw = str(OmegaConf.to_container(config.hydra.run, resolve=False)["dir"])  # type: ignore[call-overload, index]
    wanted = Path(str(config.hydra.run.dir))
    if ranks.started().rank > 0:
        folder = Path(mkdtemp(prefix="lockdec-rank-"))
    else:
        folder = make_folder(wanted, alone=bool(_BY_CLOCK.search(raw)))
    with read_write(config), open_dict(config):
        config.hydra.run.dir = str(folder)


def make_folder(wanted: Path, alone: bool = False) -> Path:
    """Make a folder, and those above it that are missing.

    Args:
        alone: whether it must be new; if another process has made it, `wanted_2`, `wanted_3`, ... is made instead.

    Returns:
        The folder.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        missing = [place for place in (wanted, *wanted.parents) if not place.exists()]
        for number in count(1):
            folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}_{number}")
            folder.parent.mkdir(parents=True, exist_ok=True)
            # Another process may make the folder now, or remove the one above it, if that is still empty.
            with suppress(*((FileNotFoundError, FileExistsError) if alone else ())):
                folder.mkdir(exist_ok=not alone)
                break
    except OSError as error:
        raise ConfigError(
            f"paths.outputs: cannot write {error.filename} ({error.strerror}); name a folder you may write to"
        ) from error
    _made[:] = [folder, *(place for place in missing if place != wanted)]
    return folder


def remove_unused() -> None:
    """Remove the folders that `make_folder` made last, unless something is in them."""
    with suppress(OSError):
        for folder in _made:
            folder.rmdir()


def forget_refused(folder: Path) -> None:
    """Remove the files of a start that was refused before its first stage, so that `remove_unused` removes its folder.

    Nothing is removed from a folder that holds anything else.
    """
    with suppress(OSError, StoreError):
        left = list(folder.iterdir())
        if {path.name for path in left} <= {CONFIG, RESULT} and not read_object(folder / RESULT).get("stages"):
            for path in left:
                path.unlink()


def cell_names(config: DictConfig, loader: ConfigLoader, overrides: Sequence[Sequence[str]]) -> list[str]:
    """The folder of each cell, relative to the sweep's: its number, unless `hydra.sweep.subdir` says otherwise.

    Raises:
        ConfigError: two cells would share a folder, or one would be outside the sweep's or inside another's.
    """
    node = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    raw = str(node["subdir"])  # type: ignore[call-overload, index]
    if raw == BY_NUMBER:
        return [str(number) for number in range(len(overrides))]
    if "${now:" in raw:
        raise ConfigError(f"hydra.sweep.subdir={raw}: the time would be another at the next start; leave it out")
    names = [_name(config, loader, cell, number) for number, cell in enumerate(overrides)]
    owners: dict[str, int] = {}
    for number, name in enumerate(names):
        if not all(map(is_name, name.split("/"))):
            raise ConfigError(f"hydra.sweep.subdir={raw}: {name} is no folder inside that of the sweep, or a part of "
                              f"it has more than {LONGEST_NAME} bytes or a dot in front")  # fmt: skip
        if name in owners:
            raise ConfigError(
                f"hydra.sweep.subdir={raw}: cells {owners[name]} and {number} would share the folder {name}; "
                f"add {BY_NUMBER} or what else tells them apart"
            )
        owners[name] = number
    for name in names:
        if inside := next((str(above) for above in Path(name).parents if str(above) in owners), None):
            raise ConfigError(f"hydra.sweep.subdir={raw}: the folder {name} would be inside that of another cell, "
                              f"{inside}")  # fmt: skip
    return names


def _name(config: DictConfig, loader: ConfigLoader, overrides: Sequence[str], number: int) -> str:
    cell = loader.load_sweep_config(config, list(overrides))
    with open_dict(cell):
        cell.hydra.job.id, cell.hydra.job.num = f"{cell.hydra.job.name}_{number}", number
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(cell)  # what ${hydra:...} reads
    try:
        return os.path.normpath(str(OmegaConf.select(cell, "hydra.sweep.subdir")))
    finally:
        HydraConfig.instance().cfg = before
