"""A run: the stages in order, each restored from the store or made and published, then result.json.

A stage's key is computed from its config subtree as resolved, its parents' keys, the content of what the config only
names (data, weights) and the version of its code, so it is known before any work. Two runs that differ in a dimension
of the cross-attention share the pretrained decoder and the encoded data by construction.
"""

from __future__ import annotations

import platform
import resource
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lockdec.config.building import Builder
from lockdec.config.checking import plain
from lockdec.console import Summary, console, printable
from lockdec.data.captions import CaptionSet
from lockdec.distributed import ranks
from lockdec.errors import ConfigError, PrunedError, StoreError, visible
from lockdec.evaluation.result import SCHEMA
from lockdec.pipeline.assembling import Assembly, assemble
from lockdec.pipeline.keys import same_results
from lockdec.redaction import of_error, redacted, text
from lockdec.runtime.devices import device_of, exact, tell_unused
from lockdec.runtime.interruption import InterruptedRunError, stoppable
from lockdec.runtime.memory import is_out_of_memory, out_of_memory
from lockdec.stages.stage import DecoderStage, Stage, Work
from lockdec.store import CURVE, METADATA, Artifact, Store, located
from lockdec.store.reading import CONFIG, RESULT, read_config
from lockdec.store.tensors import made_of
from lockdec.store.writing import clear_partial, write_bytes, write_json, write_text
from lockdec.tracking.loggers import TENSORBOARD, Tracking
from lockdec.version import __version__

SKIPPED = "skipped.txt"
CHOICES = ("data", "tokenizer", "decoder", "encoder", "cross_attention", "bridge", "fewshot", "seed")


def run(
    config: DictConfig,
    folder: Path,
    overrides: Sequence[str] = (),
    group: str | None = None,
    watchers: Sequence[Logger] = (),
    cell: str | None = None,
    builder: Builder | None = None,
) -> dict[str, Any]:
    """Run every stage of `pipeline.order`, and write result.json even if that fails.

    Args:
        config: composed by Hydra; see `lockdec.config.schema.Config`.
        folder: of this run or cell.
        overrides: as typed, for the record.
        group: the name of the sweep this is a cell of; None outside a sweep.
        watchers: are told every metric beside the loggers of the config; they may end the run with PrunedError.
        cell: how loggers name the run in its group; None for the name of its folder.
        builder: what has been built already, such as the data of the cell before; None for nothing.

    Returns:
        What result.json holds.

    Raises:
        LockdecError: something you can fix; result.json then says `failed` and why.
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
        "schema": SCHEMA,
        "status": "failed",
        "error": None,
        "name": config.name,
        "sweep_name": group,
        "command": shlex.join(["python", "-m", "lockdec.run", *_config_folder(), *redacted(overrides)]),
        "overrides": list(overrides),
        "seed": config.seed,
        "data": {name: value for name, value in plain(config.data).items() if name != "_target_"},
        "trainer": {"precision": config.trainer.precision},
        "stages": {},
        "versions": versions(),
        "started": started.isoformat(timespec="seconds"),
    }
    try:
        with stoppable():
            clear_partial(folder)
            _forget_another(config, folder)
            write_text(folder / CONFIG, _config_text(config))
            tracking = _run_stages(config, folder, result, group, watchers, cell or folder.name, builder)
            tracking.cell(redacted(result | {"cost": result["cost"] | cost(clock)}))
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
        result["cost"] = result.get("cost", {}) | cost(clock)
        result["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        result = redacted(result | {"error": result["error"] and of_error(result["error"])})
        try:
            write_json(folder / RESULT, result)
        except StoreError as error:
            if result["status"] == "ok":
                raise
            console.print(f"  {printable(str(error))}", soft_wrap=True)  # the first error is the one that is raised
    return result


def cost(since: float) -> dict[str, float]:
    """Seconds since that moment of the monotonic clock, and the most memory this process has ever held.

    Where it has used a GPU, also the most that its tensors have taken there (`peak_gpu_memory_mb`).
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"seconds": round(time.monotonic() - since, 3), "peak_memory_mb": round(peak / 1024, 1)}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return found


def _config_text(config: DictConfig) -> str:
    """The resolved config as YAML, without secrets."""
    return OmegaConf.to_yaml(OmegaConf.create(redacted(plain(config))))


def _run_stages(
    config: DictConfig,
    folder: Path,
    result: dict[str, Any],
    group: str | None,
    watchers: Sequence[Logger],
    cell: str,
    builder: Builder | None,
) -> Tracking:
    clock = time.monotonic()
    assembly = assemble(config, builder or Builder())
    outputs = Path(assembly.config.paths.outputs)
    tracking = Tracking(assembly.config.logger, group or assembly.config.name, cell, folder, outputs, watchers)
    _clear(folder, assembly.stages)
    _tell_skipped(assembly.stages, folder, result)
    result["cost"] = {"preparing_seconds": round(time.monotonic() - clock, 3)}  # until the first stage is looked up
    summary = Summary(console)
    for artifact, seconds in artifacts(config, assembly, tracking, list(assembly.stages)):
        name = artifact.stage
        took = {"seconds": round(seconds, 3), "made_in": round(artifact.seconds, 3)}
        told = {"key": artifact.key, "version": assembly.stages[name].version, "reused": artifact.reused}
        entry = told | took | {"weights": made_of(artifact.folder)}
        result["stages"][name] = entry
        _merge(result, artifact.metrics)
        _export(artifact, assembly.stages[name], folder)
        if group is None:  # a sweep has one line of its own
            summary.stage(name, entry, made_in=artifact.seconds)
    return tracking


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
    if trainer.threads:
        torch.set_num_threads(trainer.threads)
    *layers, own = assembly.config.paths.places
    store = Store(own, layers)
    keys = assembly.keys
    records = {name: redacted(subtree) for name, subtree in assembly.subtrees.items()}
    missing = _rehearsed(assembly, names, device)
    found: dict[str, Artifact] = {}
    for name in names:
        stage = assembly.stages[name]

        def wait(holder: str, name: str = name) -> None:
            who = f" ({printable(holder)})" if holder else ""
            console.print(f"  {name}: another process is making it{who}; waiting", soft_wrap=True)

        def make(workspace: Path, name: str = name, stage: Stage = stage) -> Mapping[str, Any]:
            parents = {parent: found[parent] for parent in assembly.subtrees[name]["parents"]}
            tied = {"key": keys[name], "parents": {parent: keys[parent] for parent in parents}}
            with tracking.stage(name, choices(name, records) | records[name] | tied) as loggers:
                if stage.together:
                    folders = {parent: str(artifact.folder.resolve()) for parent, artifact in parents.items()}
                    ranks.order({"make": name, "parents": folders, "logged": bool(loggers)})
                try:
                    with exact(), ranks.together() if stage.together else nullcontext():
                        metrics = stage.make(Work(name, workspace, parents, loggers, device))
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
            {parent: keys[parent] for parent in assembly.subtrees[name]["parents"]},
            waiting=wait,
        )
        if isinstance(stage, DecoderStage):
            decoder = [artifact for made, artifact in found.items() if isinstance(assembly.stages[made], DecoderStage)]
            for other in names[names.index(name) + 1 :]:
                if other in missing:
                    assembly.stages[other].check_decoder(decoder, missing[other])
        yield found[name], time.monotonic() - clock


def _rehearsed(assembly: Assembly, names: Sequence[str], device: torch.device) -> dict[str, Mapping[str, Stage]]:
    """The stages to make, each with those before it, once it is known that they can start."""
    trainer, places = assembly.config.trainer, assembly.config.paths.places
    before: dict[str, Stage] = {}
    missing: dict[str, Mapping[str, Stage]] = {}
    for name, stage in assembly.stages.items():
        if name in names and not (located(places, name, assembly.keys[name]) / METADATA).is_file():
            tell_unused(trainer.accelerator)
            stage.rehearse(device, before, assembly.keys)
            missing[name] = dict(before)
        before[name] = stage
    return missing


def _tell_skipped(stages: Mapping[str, Stage], folder: Path, result: dict[str, Any]) -> None:
    """Count the rows of the data that were left out, and list them in the run's folder where there are any."""
    fields = [getattr(stage, "data", None) for stage in stages.values()]
    sets = [data for data in fields if isinstance(data, CaptionSet)]
    if not sets:
        return
    skipped = list(dict.fromkeys(line for data in sets for line in data.skipped))
    result["data"]["skipped"] = len(skipped)
    if skipped:
        write_text(folder / SKIPPED, "".join(f"{visible(text(line))}\n" for line in skipped))
        rows = "1 row of the data is" if len(skipped) == 1 else f"{len(skipped)} rows of the data are"
        console.print(f"  {rows} left out; {SKIPPED} in the run's folder says why")


def choices(name: str, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The choices of the run that a stage depends on, its own and those of the stages before it, for loggers."""
    found: dict[str, Any] = {}
    for parent in records[name]["parents"]:
        found |= choices(parent, records)
    return found | {section: value for section, value in records[name].items() if section in CHOICES}


def versions() -> dict[str, str]:
    """The versions of the packages that compute the results."""
    packages = ("torch", "lightning", "hydra-core", "tokenizers")
    return {"lockdec": __version__, "python": platform.python_version()} | {name: version(name) for name in packages}


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for name, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = dict(value) if isinstance(value, Mapping) else value


def _export(artifact: Artifact, stage: Stage, folder: Path) -> None:
    """Copy into the run's folder the files that people and the report read there."""
    for name in stage.exports:
        source, target = artifact.path(name), folder / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copyfile(source, target)
    curve, target = artifact.path(CURVE), folder / "stages" / artifact.stage / CURVE
    if curve.is_file() and not target.exists():  # otherwise the logger has written it, with more columns
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, curve.read_bytes())


def _config_folder() -> list[str]:
    """`--config-dir FOLDER`, where the command has it: without the user's configs, its overrides mean nothing."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    named = [source.path for source in sources if source.provider == "command-line"]
    here = [Path(path).relative_to(Path.cwd()) if Path(path).is_relative_to(Path.cwd()) else path for path in named]
    return [word for path in here for word in ("--config-dir", str(path))]


def _forget_another(config: DictConfig, folder: Path) -> None:
    """Remove the result and the appended curves of a run whose stages were configured in another way.

    This run may be killed before it has a result, and the other's would then be taken for its own.
    """
    try:
        same = same_results(OmegaConf.create(read_config(folder / CONFIG)), config)
    except (StoreError, ConfigError, OmegaConfBaseException):  # there is none, or it cannot be read
        same = False
    if not same:
        (folder / RESULT).unlink(missing_ok=True)
        shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)


def _clear(folder: Path, stages: Mapping[str, Stage]) -> None:
    """Remove what an earlier run has left in this folder, so that all of it is this run's own."""
    for curve in folder.glob(f"stages/*/{CURVE}"):
        curve.unlink()
    for name in (SKIPPED, *(name for stage in stages.values() for name in stage.exports)):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        (folder / name).unlink(missing_ok=True)
