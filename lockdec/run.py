"""The command `python -m lockdec.run [overrides]`: runs the pipeline, or sweeps over options with `-m`.

Torch is imported only when a job starts, so `--help` and errors in the overrides appear at once.
"""

from __future__ import annotations

import errno
import gc
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from lockdec import redaction
from lockdec.config.overrides import arranged
from lockdec.config.schema import config_folder, register
from lockdec.distributed import ranks
from lockdec.errors import ConfigError, LockdecError, shortened, visible
from lockdec.runtime.interruption import InterruptedRunError
from lockdec.runtime.process import end_with_parent, ready
from lockdec.store.reading import SAFE_LOADER
from lockdec.sweeps.callback import DryRun, Refused, end_progress, failed_cells
from lockdec.sweeps.composing import typed_overrides
from lockdec.sweeps.folders import remove_unused
from lockdec.terminal import forgive

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

FULL_ERROR = "HYDRA_FULL_ERROR"
OF_RESOLVER = "ConfigError raised while resolving interpolation: "
OF_NULL = "'NoneType' object has no attribute 'get'\n    full_key: "  # how OmegaConf fails to fill a section of None
NO_OPTION = "Config group override must be"  # how Hydra reports a group that was given null
CANNOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG)
TRACEBACK_WANTED = os.environ.get(FULL_ERROR) == "1"


def job(config: DictConfig) -> float:
    """Run once, or run one cell of a sweep; returns the objective for Hydra's sweepers."""
    redaction.learn(_values(config))
    ready(config.logger.kinds)
    from lockdec.pipeline.following import follow, lead
    from lockdec.sweeps.jobs import run_job

    watchers: Sequence[Logger] = ()
    register()  # needed in processes started by a launcher
    hydra_config = HydraConfig.get()
    sweeping = hydra_config.mode == RunMode.MULTIRUN
    if sweeping and not hydra_config.launcher._target_.endswith(".BasicLauncher"):
        from lockdec.console import console

        console.quiet = True  # the process that started the sweep shows the progress
        if config.trainer.threads is None:
            config.trainer.threads = hydra_config.launcher.get("cpus_per_task") or 1  # cells share the cores
    try:
        if sweeping and hydra_config.launcher._target_.endswith(".JoblibLauncher"):
            end_with_parent()
        if sweeping and "lockdec_search" in hydra_config.sweeper._target_:
            from lockdec.sweeps.search import pruning_loggers

            watchers = pruning_loggers(hydra_config)
        folder = Path(hydra_config.runtime.output_dir)
        if sweeping and config.trainer.strategy != "auto":
            _require_lockstep(hydra_config)
        ranks.require_agreement(config.trainer, folder)
        ranks.join(config.trainer)
        if ranks.follows():
            return follow(config, folder)
        overrides = typed_overrides(hydra_config)
        cell = os.path.relpath(folder, hydra_config.sweep.dir) if sweeping else None
        return lead(lambda: run_job(config, folder, overrides, cell, watchers), folder)
    except Exception as error:
        _end(error)  # here, since Hydra would print lines of its own, with all overrides
    finally:
        remove_unused()


def _values(config: DictConfig) -> Any:
    """The config as plain containers; what cannot be resolved, which is said later, stays as it is."""
    try:
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException:
        return OmegaConf.to_container(config, resolve=False)


def _require_lockstep(hydra_config: Any) -> None:
    """Raise ConfigError where the ranks of a sweep would not all run the same cells in the same order."""
    launcher = hydra_config.launcher._target_
    if "lockdec_search" in hydra_config.sweeper._target_:
        raise ConfigError("hparams_search needs a single rank: choose trainer=cpu or trainer=gpu")
    if not launcher.endswith((".BasicLauncher", ".SlurmLauncher")):
        raise ConfigError(f"hydra.launcher._target_={launcher}: with several ranks, run cells one after the other "
                          "(hydra/launcher=basic) or as jobs of hydra/launcher=submitit_slurm")  # fmt: skip


@contextmanager
def _without_secrets() -> Iterator[None]:
    """Redact what Hydra prints of the config where it was asked for that and nothing runs: people paste it."""
    asked = [word.partition("=")[0] for word in sys.argv[1:]]
    if not {"--cfg", "--info", "-c", "-i"} & set(asked):
        yield
        return
    # Of a single value, Hydra prints nothing else: its key is what stands after --package.
    packages = [value for name, value in zip(sys.argv, sys.argv[1:], strict=False) if name in ("-p", "--package")]
    terminal, key = sys.stdout, "".join(packages[-1:]).rpartition(".")[2]
    with redirect_stdout(StringIO()) as printed:
        try:
            yield
        finally:
            for part in re.split(r"(^.*\n\*+\n|^#.*\n)", printed.getvalue(), flags=re.MULTILINE):
                config = None
                with suppress(yaml.YAMLError):  # a table of the search path, say
                    config = yaml.load(part, SAFE_LOADER)
                if isinstance(config, dict):
                    part = OmegaConf.to_yaml(redaction.redacted(config))
                elif isinstance(config, str | int | float) and redaction.is_secret(key):
                    part = f"{redaction.REDACTED}\n"
                print(redaction.text(part), end="", file=terminal)


def main() -> None:
    """Compose the config and run; errors that the user can fix end the process with one plain line."""
    forgive()
    redaction.learn(sys.argv[1:])
    register()
    os.environ[FULL_ERROR] = "1"  # makes Hydra raise its errors instead of printing them and ending the process
    try:
        try:
            sys.argv[1:] = arranged(sys.argv[1:])
            with _without_secrets():
                hydra.main(config_path=str(config_folder()), config_name="config", version_base="1.3")(job)()
        except DryRun as wanted:
            from lockdec.sweeps.plan import plan, show

            gc.freeze()  # what was imported stays: the collector need not look through it for each cell
            sys.exit(show(plan(wanted.cells(), wanted.at_once, wanted.total), wanted.trials))
        except Refused as refused:
            _end(refused.error)
        finally:
            end_progress()
            ranks.leave()
    except Exception as error:
        _end(error)
    except (KeyboardInterrupt, InterruptedRunError) as error:
        status = error.status if isinstance(error, InterruptedRunError) else 130
        print(f"\nlockdec: {error or 'interrupted'}; run the same command again to resume", file=sys.stderr)
        sys.exit(status)
    if failed_cells():
        sys.exit(1)


def _end(error: Exception) -> NoReturn:
    """End with one plain line, or with the traceback of an error that the user cannot fix; neither shows a secret."""
    if ranks.started().rank > 0 and isinstance(error, ConfigError | HydraException | OmegaConfBaseException):
        sys.exit(1)  # the first rank prints it
    if not TRACEBACK_WANTED:
        if isinstance(error, LockdecError | HydraException | OmegaConfBaseException) or OF_NULL in str(error):
            sys.exit(f"lockdec: {one_line(error)}")
        if isinstance(error, ValueError) and NO_OPTION in str(error):
            nulls = [word for word in sys.argv[1:] if "null" in word.partition("=")[2].split(",")]
            sys.exit(f"lockdec: {visible(' '.join(nulls))}: a group cannot be null; leave it out, or use GROUP=[]")
        if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
            place = visible(f"cannot write {error.filename} ({error.strerror})")
            sys.exit(f"lockdec: paths.outputs: {place}; name a folder you may write to, with space left")
    print(redaction.text("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    sys.exit(1)


def one_line(error: Exception) -> str:
    """The error as one line that is safe to print: without secrets and control characters."""
    return shortened(visible(redaction.of_error(explain(error))))


def _is_swept(name: str, value: str) -> bool:
    """Whether a word of the command line lets a sweep choose among the options of a group."""
    return "," in value and "." not in name and (config_folder() / name).is_dir()


def explain(error: Exception) -> str:
    """The error as one plain line that names the key and what is allowed."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__ or error.__context__
    if isinstance(error, LockdecError):
        return " ".join(lines)
    if found := re.search(r"An item is already at '(\S+)'", lines[0]):
        return f"+{found[1]}: this key is there already; write {found[1]}=..., without the plus"
    if OF_RESOLVER in lines[0]:
        return lines[0].partition(OF_RESOLVER)[2]
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        known = error.options or sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
        own = "" if any("config-dir" in word for word in sys.argv) else "; --config-dir FOLDER adds your own"
        return f"{group or 'config'}={option}: no such option (there are: {', '.join(known)}{own})"
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and isinstance(cause.parent_node, DictConfig):
        missing = str(cause.full_key)
        typed = next((word.partition("=")[0] for word in sys.argv[1:] if word.startswith(missing)), missing)
        swept = [name for name, _, value in (word.partition("=") for word in sys.argv[1:]) if _is_swept(name, value)]
        section, _, below = missing.partition(".")  # a whole section is missing where only one of the options has it
        chosen = next((name for name in swept if name == section or not below), None)
        hint = f"; where a sweep chooses {chosen}, write ++{typed}=..." if chosen else ""
        return f"{missing}: no such key (allowed: {', '.join(map(str, cause.parent_node))}){hint}"
    if isinstance(cause, OmegaConfBaseException) and (found := re.search(r"override (\S+)", lines[0])):
        return f"{found[1]}: {str(cause).splitlines()[0]}"
    key = getattr(error, "full_key", None)
    if OF_NULL in str(error) and (found := re.search(r"full_key: (\S+)", str(error))):
        return f"{found[1]} is null here, and on the command line nothing below it can be given; use a config file"
    if found := re.search(r"Error trying to access (\S+): node `(\S+)` is not a container", lines[0]):
        return f"{found[2]}: {key} reads {found[1]}, but there is no such section"
    if isinstance(error, MissingMandatoryValue) and key:
        return f"{key} has to be given: {key}=..."
    return f"{key}: {lines[0]}" if key else lines[0]


if __name__ == "__main__":
    main()
