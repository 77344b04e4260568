"""Runs of Weights & Biases: opened without stalling a training, and what is logged to them.

A stage that is executed has a run of its own; a reused stage has none. The run of the cell connects them: its config
holds the artifact key of every stage and whether it was reused, and its metrics are those of result.json. A W&B sweep
reads the run of the cell.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockdec.config.schema import LoggerConfig
from lockdec.console import console
from lockdec.errors import StoreError
from lockdec.store.reading import CAPTIONS, read_json_lines

if TYPE_CHECKING:
    import wandb

STEP = "trainer/global_step"
START_TIMEOUT = 15.0  # seconds that an online run may take to start
FINISH_TIMEOUT = 60.0  # seconds for uploads at its end; `wandb sync` uploads the rest from disk
LOWER_IS_BETTER = ("loss", "val_loss")
HIGHER_IS_BETTER = ("accuracy", "val_accuracy")
CELL = "cell"  # the job type of the run that stands for a whole run of lockdec or cell of a sweep
PARTS_OF_CONFIG = (
    "command",
    "overrides",
    "seed",
    "data",
    "encoder",
    "cross_attention",
    "bridge",
    "fewshot",
    "trainer",
    "stages",
    "versions",
)
PARTS_OF_METRICS = (
    "metrics",
    "controls",
    "gap_over_prior",
    "gap_over_locked",
    "attributes",
    "looking",
    "parameters",
    "unlock",
    "cost",
)

_unreachable: set[str] = set()


def open_run(
    config: LoggerConfig, group: str, cell: str, job_type: str, outputs: Path, known: Mapping[str, Any] | None = None
) -> wandb.Run:
    """Start a run: online if `config.mode` says so and the server answers within `START_TIMEOUT`, else offline.

    Args:
        group: the name of the run of lockdec or of the sweep.
        cell: the name of the run's folder.
        job_type: the stage, or `CELL`.
        outputs: receives `wandb/`.
        known: the initial config of the run.
    """
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    outputs.mkdir(parents=True, exist_ok=True)
    agent = from_agent() if job_type == CELL else {}
    from_agent()  # in every case: a stage must not take the id meant for the cell

    def begin(mode: str) -> wandb.Run:
        return wandb.init(
            project=config.project,
            entity=config.entity,
            group=group,
            job_type=job_type,
            name=f"{group}/{cell}/{job_type}",
            tags=[job_type, group[:64]],
            config=dict(known or {}),
            id=agent.get("WANDB_RUN_ID"),
            dir=outputs,
            mode=mode,  # type: ignore[arg-type]
            reinit="create_new",
            settings=wandb.Settings(
                console="off",
                x_disable_stats=True,
                x_disable_meta=True,
                init_timeout=START_TIMEOUT,
                login_timeout=START_TIMEOUT,
                finish_timeout=FINISH_TIMEOUT,
                sweep_id=agent.get("WANDB_SWEEP_ID"),
            ),
        )

    mode = config.mode
    if mode == "online" and _unreachable:
        mode = "offline"  # wait for the server only once
    try:
        run = begin(mode)
    except wandb.errors.Error as error:
        if mode != "online":
            raise
        why = str(error).splitlines()[0]
        _unreachable.add(why)
        console.print(
            f"  W&B cannot be reached ({why}); logging offline, upload later with `wandb sync`",
            soft_wrap=True,
            markup=False,
        )
        run = begin("offline")
    return run


@cache
def from_agent() -> dict[str, str]:
    """The ids that `wandb agent` sets in the environment, removed from it so that only one run uses them."""
    names = ("WANDB_RUN_ID", "WANDB_SWEEP_ID")
    return {name: os.environ.pop(name) for name in names if name in os.environ}


def define_metrics(run: wandb.Run, stage: str) -> None:
    """Set the step metric, and for each curve whether its lowest or its highest value is the best."""
    run.define_metric("*", step_metric=STEP)
    for name in LOWER_IS_BETTER:
        run.define_metric(f"{stage}/{name}", summary="min", step_metric=STEP)
    for name in HIGHER_IS_BETTER:
        run.define_metric(f"{stage}/{name}", summary="max", step_metric=STEP)


def log_files(run: wandb.Run, folder: Path, stage: str, weights: bool) -> None:
    """Log the captions of an artifact and, if wanted, its weights. A lost connection does not fail the run."""
    import wandb

    try:
        with _staged_beside(run):
            log_captions(run, folder)
            if weights:
                log_weights(run, folder, stage)
    except (wandb.errors.Error, OSError, StoreError) as error:
        console.print(f"  W&B refused the files of {stage} ({error}); they are in {folder.parent}", markup=False)


@contextmanager
def _staged_beside(run: wandb.Run) -> Iterator[None]:
    """Within it, files that W&B keeps until it has uploaded them wait beside the runs, not in the home folder."""
    if "WANDB_DATA_DIR" in os.environ:  # the user has chosen a place
        yield
        return
    os.environ["WANDB_DATA_DIR"] = str(Path(run.dir).resolve().parents[1])
    try:
        yield
    finally:
        del os.environ["WANDB_DATA_DIR"]


def log_captions(run: wandb.Run, folder: Path) -> None:
    """Log captions.jsonl of an artifact, if it has one, as the table `captions`, with the drawings."""
    import wandb

    path = folder / CAPTIONS
    if not path.is_file():
        return
    rows = read_json_lines(path)
    names = list(rows[0]) if rows else []
    table = wandb.Table(columns=["drawing", *names])
    for row in rows:
        picture = folder / "drawings" / f"{row['id']}.png"
        texts = [" / ".join(value) if isinstance(value, list) else value for value in (row.get(n) for n in names)]
        table.add_data(wandb.Image(str(picture)) if picture.is_file() else None, *texts)
    run.log({"captions": table})


def log_weights(run: wandb.Run, folder: Path, stage: str) -> None:
    """Log a stage's weights as a W&B artifact named after the stage and its key."""
    import wandb

    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        return
    known = {name: run.config[name] for name in ("key", "parents")}
    artifact = wandb.Artifact(f"{stage}-{known['key'][:12]}", type=stage, metadata=known)
    for path in (*weights, *sorted(folder.glob("*.json"))):
        artifact.add_file(str(path))
    run.log_artifact(artifact)
