"""A run: the stages in order, each restored from the store or made and published, then result.json.

A stage's key is computed from its config subtree as resolved, its parents' keys, the content of what the config only
names (data, weights) and the version of its code, so it is known before any work. Two runs that differ in a dimension
of the cross-attention share the pretrained decoder and the encoded data by construction.
"""

from __future__ import annotations

import json
import math
import platform
import resource
import shlex
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lockdec import __version__, ranks
from lockdec.building import Builder
from lockdec.cells import RESULT, claimed
from lockdec.config import Config, checked, plain
from lockdec.console import Summary, console, printable, printable_lines
from lockdec.data.captions import CaptionSet
from lockdec.devices import device_of, exact
from lockdec.errors import ConfigError, LockdecError, PrunedError, StoreError, visible
from lockdec.interruption import InterruptedRunError, stoppable
from lockdec.memory import is_out_of_memory, out_of_memory
from lockdec.redaction import redacted
from lockdec.stages.evaluate import spread
from lockdec.stages.stage import Stage, Work
from lockdec.store import Artifact, Store, artifact_key
from lockdec.store.reading import read_config, read_object
from lockdec.store.writing import clear_partial, write_json, write_text
from lockdec.tracking import Tracking

CONFIG, SKIPPED = "config.yaml", "skipped.txt"
CHOICES = ("data", "tokenizer", "decoder", "encoder", "cross_attention", "fewshot", "seed")
SHOWN = 12  # captions printed at the end of a run

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


def run_job(
    config: DictConfig, folder: Path, overrides: Sequence[str], sweeping: bool, watchers: Sequence[Logger] = ()
) -> float:
    """What Hydra runs: one run with its closing tables and report, or one cell of a sweep.

    A cell that is finished already is not run again; one that fails is recorded and does not end the sweep.

    Returns:
        The objective; NaN for a failed cell.
    """
    if not sweeping:
        result = run(config, folder, overrides)
        Summary(console).result(result, spread(read_captions(folder), SHOWN), folder)
        from lockdec.report.page import write_report

        console.print(f"Report: [bold]{printable(str(write_report([folder]).report))}[/]", soft_wrap=True)
        return objective(result, config.objective)
    with claimed(folder):
        _redact_multirun(folder.parent / "multirun.yaml")
        if finished := finished_cell(config, folder):
            return objective(finished, config.objective)
        try:
            return objective(run(config, folder, overrides, config.sweep_name, watchers), config.objective)
        except PrunedError:
            return math.nan
        except Exception as error:  # whatever it was is in result.json; the other cells still count
            console.print(f"cell {folder.name} failed: {printable(str(error))}", soft_wrap=True)
            if not isinstance(error, LockdecError):
                console.print(printable_lines(traceback.format_exc()), soft_wrap=True)
            if ranks.broken():
                raise
            return math.nan


def _redact_multirun(path: Path) -> None:
    """Hydra has written every override of a sweep there, as it was typed."""
    if path.is_file():
        typed = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        if (safe := redacted(typed)) != typed:
            write_text(path, OmegaConf.to_yaml(OmegaConf.create(safe)))


def finished_cell(config: DictConfig, folder: Path) -> dict[str, Any] | None:
    """The result a cell has left, when it is `ok` and its stages are configured as before; see `decisive`."""
    try:
        result = read_object(folder / RESULT)
        before = OmegaConf.create(read_config(folder / CONFIG))
        same = decisive(before) == redacted(decisive(config))  # as it was written
    except (StoreError, OmegaConfBaseException):
        return None
    return result if same and result.get("status") == "ok" else None


def decisive(config: DictConfig | ListConfig) -> dict[str, Any]:
    """What a run's results follow from: the config of each of its stages, without what changes no result."""
    return {
        name: without(redacted(plain(config.stages[name])), CANNOT_CHANGE_RESULT, name)
        for name in config.pipeline.order
    }


def objective(result: Mapping[str, Any], metric: str) -> float:
    """The metric that Hydra's sweepers are told; NaN after a pipeline that evaluates nothing.

    Raises:
        ConfigError: result.json has no such metric.
    """
    if "metrics" not in result:
        return math.nan
    metrics = result["metrics"]
    if metric not in metrics:
        raise ConfigError(f"objective={metric} is not one of: {', '.join(metrics)}")
    return float(metrics[metric])


def read_captions(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's captions.jsonl; none when there is no such file."""
    path = folder / "captions.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def run(
    config: DictConfig,
    folder: Path,
    overrides: Sequence[str] = (),
    group: str | None = None,
    watchers: Sequence[Logger] = (),
) -> dict[str, Any]:
    """Run every stage of `pipeline.order` and write result.json, whatever happens.

    Args:
        config: composed by Hydra; see `lockdec.config.Config`.
        folder: of this run or cell.
        overrides: what the user typed, for the record.
        group: the name of the sweep this is a cell of; None outside a sweep.
        watchers: are told every metric beside the loggers of the config; they may end the run with PrunedError.

    Returns:
        What result.json holds.

    Raises:
        LockdecError: something the user can mend; result.json then says `failed` and why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"paths.outputs={config.paths.outputs}: cannot write there ({error.strerror}); "
            "name a folder you may write to"
        ) from error
    started, clock = datetime.now(UTC), time.monotonic()
    result: dict[str, Any] = {
        "schema": 1,
        "status": "failed",
        "error": None,
        "name": config.name,
        "sweep_name": group,
        "command": shlex.join(["python", "-m", "lockdec.run", *overrides]),
        "overrides": list(overrides),
        "seed": config.seed,
        "data": {name: value for name, value in plain(config.data).items() if name != "_target_"},
        "stages": {},
        "versions": versions(),
        "started": started.isoformat(timespec="seconds"),
    }
    try:
        with stoppable():
            clear_partial(folder)
            write_text(folder / CONFIG, _config_text(config))
            tracking = _run_stages(config, folder, result, group, watchers)
            tracking.cell(redacted(result | {"cost": cost(clock)}))
        result["status"] = "ok"
    except (KeyboardInterrupt, InterruptedRunError) as error:
        result |= {"status": "interrupted", "error": f"{error}" or "interrupted by the user"}
        raise
    except PrunedError as error:
        result |= {"status": "pruned", "error": f"{error}"}
        raise
    except BaseException as error:
        result["error"] = f"{error}" or type(error).__name__
        raise
    finally:
        result["cost"] = cost(clock)
        result["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        result = redacted(result)
        try:
            write_json(folder / RESULT, result)
        except StoreError as error:
            if result["status"] == "ok":
                raise
            console.print(f"  {printable(str(error))}", soft_wrap=True)  # what went wrong first is what is raised
    return result


def cost(since: float) -> dict[str, float]:
    """Seconds since that moment of the monotonic clock, and the most memory this process has ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": round(time.monotonic() - since, 3), "peak_memory_mb": round(peak / 1024, 1)}


def _config_text(config: DictConfig) -> str:
    """The config resolved, as YAML, without what is secret in it."""
    return OmegaConf.to_yaml(OmegaConf.create(redacted(plain(config))))


def _run_stages(
    config: DictConfig, folder: Path, result: dict[str, Any], group: str | None, watchers: Sequence[Logger]
) -> Tracking:
    assembly = assemble(config, Builder())
    outputs = Path(assembly.config.paths.outputs)
    tracking = Tracking(assembly.config.logger, group or assembly.config.name, folder, outputs, watchers)
    _tell_skipped(assembly.stages, folder, result)
    summary = Summary(console)
    for artifact, seconds in artifacts(config, assembly, tracking, list(assembly.stages)):
        name = artifact.stage
        entry = {"key": artifact.key, "reused": artifact.reused, "seconds": round(seconds, 3)}
        result["stages"][name] = entry
        _merge(result, artifact.metrics)
        _export(artifact, assembly.stages[name], folder)
        if group is None:  # a sweep has one line of its own
            summary.stage(name, entry, made_in=artifact.seconds)
    return tracking


@dataclass(frozen=True)
class Assembly:
    """The stages of a run, before any of them works.

    Attributes:
        config: of the run, checked.
        subtrees: the config of each stage, in the order of the pipeline.
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
    typed = checked(config)
    subtrees = {name: plain(config.stages[name]) for name in typed.pipeline.order}
    stages = build_stages(subtrees, builder)
    return Assembly(typed, subtrees, stages, stage_keys(stages, subtrees))


def artifacts(
    config: DictConfig, assembly: Assembly, tracking: Tracking, names: Sequence[str]
) -> Iterator[tuple[Artifact, float]]:
    """Restore stages from the store, or make and publish them, with as many threads as the config says.

    Args:
        config: that the stages were assembled from.
        names: of the stages, in the order of the pipeline; what is a parent of one of them is one of them.

    Yields:
        Each artifact, and the seconds until it was there.
    """
    trainer = assembly.config.trainer
    device = device_of(trainer)
    recorded = trainer.compile and device.type == "cuda"
    if trainer.threads:
        torch.set_num_threads(trainer.threads)
    store = Store(Path(assembly.config.paths.outputs) / "stages")
    keys = assembly.keys
    records = {name: redacted(subtree) for name, subtree in assembly.subtrees.items()}
    found: dict[str, Artifact] = {}
    for name in names:
        stage = assembly.stages[name]

        def wait(name: str = name) -> None:
            console.print(f"  {name}: another process is making it; waiting")

        def make(workspace: Path, name: str = name, stage: Stage = stage) -> Mapping[str, Any]:
            parents = {parent: found[parent] for parent in stage.parents}
            tied = {"key": keys[name], "parents": {parent: keys[parent] for parent in parents}}
            with tracking.stage(name, choices(name, assembly.stages, records) | records[name] | tied) as loggers:
                if stage.together:
                    ranks.order({"make": name, "parents": tied["parents"], "logged": bool(loggers)})
                try:
                    with exact(), ranks.together() if stage.together else nullcontext():
                        metrics = stage.make(Work(name, workspace, parents, loggers, device, recorded))
                except Exception as error:
                    if is_out_of_memory(error):
                        raise out_of_memory(name, config, error) from error
                    raise
                tracking.publish(loggers, name, metrics, workspace)
            return metrics

        clock = time.monotonic()
        found[name] = store.get_or_make(
            name,
            keys[name],
            make,
            records[name],
            {parent: keys[parent] for parent in stage.parents},
            waiting=wait,
        )
        yield found[name], time.monotonic() - clock


def _tell_skipped(stages: Mapping[str, Stage], folder: Path, result: dict[str, Any]) -> None:
    """Count the rows of the data that were left out, and list them in the run's folder where there are any."""
    fields = [getattr(stage, "data", None) for stage in stages.values()]
    sets = [data for data in fields if isinstance(data, CaptionSet)]
    if not sets:
        return
    skipped = list(dict.fromkeys(line for data in sets for line in data.skipped))
    result["data"]["skipped"] = len(skipped)
    if skipped:
        write_text(folder / SKIPPED, "".join(f"{visible(line)}\n" for line in skipped))
        rows = "1 row of the data is" if len(skipped) == 1 else f"{len(skipped)} rows of the data are"
        console.print(f"  {rows} left out; {SKIPPED} in the run's folder says why")


def build_stages(subtrees: Mapping[str, Mapping[str, Any]], builder: Builder) -> dict[str, Stage]:
    """The stages, checked, before any of them works.

    Raises:
        ConfigError: a stage's config is wrong, or a parent of it does not come before it.
    """
    stages: dict[str, Stage] = {}
    for name, subtree in subtrees.items():
        stage = builder.build(subtree, f"stages.{name}", Stage)
        for parent in stage.parents:
            if parent not in stages:
                raise ConfigError(f"pipeline.order={list(subtrees)}: {name} needs {parent} before it")
        stage.check()
        stages[name] = stage
    return stages


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


def choices(name: str, stages: Mapping[str, Stage], records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The choices of the run that a stage depends on, its own and those of the stages before it, for loggers."""
    found: dict[str, Any] = {}
    for parent in stages[name].parents:
        found |= choices(parent, stages, records)
    return found | {section: value for section, value in records[name].items() if section in CHOICES}


def without(node: Mapping[str, Any], patterns: Sequence[str], path: str) -> dict[str, Any]:
    """The node, which stands at the dotted `path`, without the keys whose dotted path, or path=value, matches."""
    return {
        name: without(value, patterns, f"{path}.{name}") if isinstance(value, Mapping) else value
        for name, value in node.items()
        if not any(fnmatchcase(place, pattern) for pattern in patterns for place in _places(path, name, value))
    }


def _places(path: str, name: str, value: Any) -> tuple[str, ...]:
    return (f"{path}.{name}", f"{path}.{name}={value}") if isinstance(value, str | bool) else (f"{path}.{name}",)


def versions() -> dict[str, str]:
    """The versions of what computes the results."""
    packages = ("torch", "lightning", "hydra-core", "tokenizers")
    return {"lockdec": __version__, "python": platform.python_version()} | {name: version(name) for name in packages}


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for name, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = dict(value) if isinstance(value, Mapping) else value


def _export(artifact: Artifact, stage: Stage, folder: Path) -> None:
    """Copy into the run's folder what a person or the report reads there."""
    for name in stage.exports:
        source, target = artifact.path(name), folder / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copyfile(source, target)
    curve, target = artifact.path("metrics.csv"), folder / "stages" / artifact.stage / "metrics.csv"
    if curve.is_file() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(curve, target)
