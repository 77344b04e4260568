"""How a module is trained to its last step, by a Lightning Trainer that resumes bit-identically after a kill.

Everything random in a step is a function of the seed and the number of the step: the batches (the data's loaders start
at `trainer.global_step`) and the dropout (seeded before each step). So a resumed run needs only the last checkpoint, no
generator states and no count of batches, and the clock may decide when checkpoints are saved.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger

from lockdec.config.schema import TrainerConfig
from lockdec.console import LongWork, console
from lockdec.distributed import ranks
from lockdec.runtime.acceleration import accelerated
from lockdec.runtime.interruption import asked_to_stop, patient, stop_now
from lockdec.runtime.memory import describe_shapes
from lockdec.store import CHECKPOINT, CURVE, UNFINISHED
from lockdec.tracking.curves import TableLogger, write_table
from lockdec.training.checkpoints import CheckpointIO, usable
from lockdec.training.divergence import DivergedError, Divergence, finite
from lockdec.training.watching import LOG_EVERY, Pulse

# One process is a valid choice where SLURM is installed.
warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
# `lockdec.runtime.devices` says how to use it.
warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
# Lightning's notes on devices and its tips would stand between the lines of a run.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


def fit(
    module: L.LightningModule,
    data: L.LightningDataModule,
    *,
    stage: str,
    folder: Path,
    loggers: Sequence[Logger],
    steps: int,
    seed: int,
    clip_norm: float,
    trainer: TrainerConfig,
    callbacks: Iterable[L.Callback] = (),
    val_every: int | None = None,
) -> dict[str, float]:
    """Train `module` for `steps` optimizer steps, from the last checkpoint in `folder` where there is one.

    Args:
        stage: names what is shown while it trains.
        folder: of the unfinished artifact, in a folder of its stage; receives `last.ckpt` and, at the end,
            `metrics.csv` with the whole curve.
        clip_norm: the gradient's largest norm; 0 does not clip.
        val_every: steps between two measurements on the validation data; None for one at the end.

    Returns:
        The last logged metrics; where the loss broke and `trainer.on_nan` is rollback, also how often (`rollbacks`)
        and at which step the last time (`rolled_back_at`).

    Raises:
        DivergedError: the loss became infinite or NaN, or exploded.
        InterruptedRunError: a signal asked the run to stop; `last.ckpt` is there.
        LostRankError: this is one of several ranks, and another is gone.
        FollowedError: this is one of several ranks, and not the first: it has done its part.
    """
    folder = Path(ranks.agree(str(folder)))
    curve = Curve([logger for logger in loggers if isinstance(logger, TableLogger)])
    divergence = Divergence(stage, folder, trainer.on_nan == "rollback")
    checkpoint, kept = folder / CHECKPOINT, (curve, divergence)
    initial = deepcopy(module.state_dict()) if divergence.rollback else {}
    if ranks.rank() == 0 and divergence.rollback:
        usable(divergence.good, owner(folder), module, kept)
    every_callback = [
        StepSeed(seed),
        curve,
        divergence,
        Checkpoints(checkpoint, trainer.checkpoint_seconds),
        ShowProgress(stage, steps),
        NameBatch(),
        *([Pulse(stage)] if loggers else []),
        *callbacks,
    ]
    while True:
        lightning_trainer = _trainer(trainer, every_callback, loggers, folder, steps, clip_norm, val_every)
        try:
            resumes = ranks.agree(ranks.rank() == 0 and usable(checkpoint, owner(folder), module, kept))
            if not resumes and checkpoint == divergence.good:  # it has been damaged since
                module.load_state_dict(initial)
                divergence.forget()
                curve.load_state_dict({"rows": {}, "table": {}})
            with accelerated(module, trainer):
                _fit(lightning_trainer, module, data, checkpoint if resumes else None)
            break
        except DivergedError as error:
            divergence.retreat(error)
            checkpoint = divergence.good
            console.print(f"  {error}", soft_wrap=True, markup=False)
            console.print(f"  {stage}: continuing from {checkpoint.name} at half the learning rate")
    ranks.gather(module)
    if ranks.rank() > 0:
        raise ranks.FollowedError
    write_table(folder / CURVE, curve.rows)
    logged = {name: float(value) for name, value in lightning_trainer.callback_metrics.items()}
    if broken := divergence.rollbacks:
        logged |= {f"{stage}/rollbacks": float(len(broken)), f"{stage}/rolled_back_at": float(broken[-1])}
    return logged


def owner(folder: Path) -> str:
    """Stage and key of the artifact that an unfinished folder becomes."""
    return f"{folder.parent.name}/{folder.name.removesuffix(UNFINISHED)}"


def _trainer(
    trainer: TrainerConfig,
    callbacks: list[L.Callback],
    loggers: Sequence[Logger],
    folder: Path,
    steps: int,
    clip_norm: float,
    val_every: int | None,
) -> L.Trainer:
    processes = ranks.strategy(trainer)
    made: Any = L.Trainer(
        accelerator=trainer.accelerator,
        strategy=processes["strategy"],
        devices=processes["devices"],
        num_nodes=processes["num_nodes"],
        use_distributed_sampler=False,  # the loaders give every rank the whole batch, of which it takes its share
        precision=trainer.precision,  # type: ignore[arg-type]
        max_epochs=1,
        max_steps=steps,
        gradient_clip_val=clip_norm or None,
        logger=list(loggers) or False,
        callbacks=callbacks,
        plugins=[CheckpointIO(owner(folder)), *processes["plugins"]],
        val_check_interval=min(val_every, steps) if val_every else None,
        log_every_n_steps=min(LOG_EVERY, steps),
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic=True,
        default_root_dir=folder,
    )
    # It would set handlers of its own from here to the end of training: see `lockdec.runtime.interruption`.
    made._signal_connector.register_signal_handlers = lambda: None
    return made  # type: ignore[no-any-return]


def _fit(trainer: L.Trainer, module: L.LightningModule, data: L.LightningDataModule, checkpoint: Path | None) -> None:
    # Deterministic training would fill all memory before its first use; nothing here reads uninitialised memory.
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False
    with warnings.catch_warnings(), patient():
        # The loaders hand out prepared tensors: worker processes would cost more than they save.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # frozen on purpose
        warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")  # a callback measures
        warnings.filterwarnings("ignore", message=".*FSDP2-wrapped module .* returned a view.*")  # nothing is in place
        warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")  # inside lightning
        try:
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except RuntimeError as error:  # what torch's backends raise
            if gone := ranks.lost(error):
                raise gone from error
            raise


class StepSeed(L.Callback):
    """Seeds torch before each step with a function of the seed and the step."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        seed = self.seed * 1_000_003 + trainer.global_step
        if trainer.strategy.root_device.type == "cpu":
            torch.default_generator.manual_seed(seed)
        else:  # does so, too, but first notes down the whole stack for every kind of device that has not been used
            torch.manual_seed(seed)


class Curve(L.Callback):
    """Collects what is logged. Its state is in the checkpoint, so a resumed curve is whole.

    Args:
        tables: the loggers that write a curve of their own, which is in the checkpoint, too.
    """

    def __init__(self, tables: Sequence[TableLogger]) -> None:
        self.rows: dict[int, dict[str, float]] = {}
        self.tables = tables

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step % LOG_EVERY == 0 or trainer.global_step == trainer.max_steps:
            # What was measured on the validation data stays among the metrics until it is measured again.
            logged = {name: float(value) for name, value in trainer.callback_metrics.items() if "/val_" not in name}
            self.rows[trainer.global_step] = logged

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self.rows:
            last = self.rows[max(self.rows)]
            last.update({name: float(value) for name, value in trainer.callback_metrics.items()})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "table": self.tables[0].rows if self.tables else {}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = dict(state_dict["rows"])
        for table in self.tables:
            table.rows = {step: dict(row) for step, row in (state_dict["table"] or self.rows).items()}


class Checkpoints(L.Callback):
    """Saves the unfinished stage at an interval in seconds; on a signal to stop, saves it and stops."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds, self._last = path, seconds, time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        # Every rank has to decide alike: saving waits for all of them.
        due = time.monotonic() - self._last >= self.seconds
        wish = ranks.highest(2 if asked_to_stop() else int(due))
        if wish and trainer.global_step < trainer.max_steps and finite(module):
            trainer.save_checkpoint(self.path)
            self._last = time.monotonic()
        if wish == 2 and trainer.global_step < trainer.max_steps:
            stop_now(agreed=True)


class NameBatch(L.Callback):
    """Adds a note to an error: the batch on which it was raised."""

    def __init__(self) -> None:
        self._batch: Any = None

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch = batch

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Exception):
            exception.add_note(f"a batch of {describe_shapes(self._batch)} at step {trainer.global_step}")


class ShowProgress(L.Callback):
    """Shows how many steps are done, with the loss."""

    def __init__(self, stage: str, steps: int) -> None:
        self.stage, self.steps = stage, steps
        self._work: LongWork | None = None
        self._note = ""

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step and trainer.is_global_zero:
            console.print(f"  {self.stage}: continuing after step {trainer.global_step} of {self.steps}")
        self._work = LongWork(self.stage, self.steps, trainer.global_step)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step % LOG_EVERY == 0:  # reading the loss waits for the device
            loss = trainer.callback_metrics.get(f"{self.stage}/loss")
            self._note = "" if loss is None else f"loss {float(loss):.3f}"
        if self._work is not None:
            self._work.update(trainer.global_step, self._note)

    def on_train_end(self, *_: Any) -> None:
        if self._work is not None:
            self._work.stop()

    def on_exception(self, *_: Any) -> None:
        self.on_train_end()
