"""How a module is trained to its last step, by a Lightning Trainer that goes on bit-identically after a kill.

Everything random in a step is a function of the seed and the number of the step: the batches (the data's loaders start
at `trainer.global_step`) and the dropout (seeded before each step). So a resumed run needs no generator states and no
count of batches, only the last checkpoint, and time may decide when checkpoints are written.
"""

from __future__ import annotations

import csv
import logging
import os
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from rich.progress import TaskID

from lockdec.config import TrainerConfig
from lockdec.console import progress
from lockdec.errors import LockdecError
from lockdec.store import CHECKPOINT

LOG_EVERY = 10  # steps between two rows of a curve

# Lightning's news of devices and its tips would stand between the lines of a run.
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
        stage: names the progress bar.
        folder: of the unfinished artifact; receives `last.ckpt` and, at the end, `metrics.csv` with the whole curve.
        clip_norm: the gradient's largest norm; 0 does not clip.
        val_every: steps between two measurements on the validation data; None for one at the end.

    Returns:
        The last logged metrics.

    Raises:
        LockdecError: the loss became infinite or NaN; names stage and step.
    """
    curve = Curve()
    checkpoint = folder / CHECKPOINT
    lightning_trainer = L.Trainer(
        accelerator=trainer.accelerator,
        devices=trainer.devices,
        precision=trainer.precision,  # type: ignore[arg-type]
        max_epochs=1,
        max_steps=steps,
        gradient_clip_val=clip_norm or None,
        logger=list(loggers) or False,
        callbacks=[
            StepSeed(seed),
            curve,
            StopOnDivergence(stage),
            Checkpoints(checkpoint, trainer.checkpoint_seconds),
            ProgressBar(stage, steps),
            *callbacks,
        ],
        plugins=[AtomicCheckpointIO()],
        val_check_interval=min(val_every, steps) if val_every else None,
        log_every_n_steps=LOG_EVERY,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic=True,
        default_root_dir=folder,
    )
    with warnings.catch_warnings():
        # The loaders hand out prepared tensors: worker processes would cost more than they save.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # frozen on purpose
        warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")  # inside lightning
        lightning_trainer.fit(
            module, datamodule=data, ckpt_path=checkpoint if checkpoint.is_file() else None, weights_only=True
        )
    curve.write(folder / "metrics.csv")
    return {name: float(value) for name, value in lightning_trainer.callback_metrics.items()}


class StepSeed(L.Callback):
    """Seeds torch before each step with a function of the seed and the step."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        torch.manual_seed(self.seed * 1_000_003 + trainer.global_step)


class Curve(L.Callback):
    """Collects what is logged; its state travels in the checkpoint, so a resumed curve is whole."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._since = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step % LOG_EVERY == 0 or trainer.global_step == trainer.max_steps:
            # What was measured on the validation data stays among the metrics until it is measured again.
            logged = {name: float(value) for name, value in trainer.callback_metrics.items() if "/val_" not in name}
            self.rows.append({"step": trainer.global_step, **logged})

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self.rows:
            self.rows[-1].update({name: float(value) for name, value in trainer.callback_metrics.items()})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])

    def write(self, path: Path) -> None:
        """Write the curve as CSV, a row a logged step."""
        columns = ["step", *sorted({name for row in self.rows for name in row} - {"step"})]
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.rows)


class StopOnDivergence(L.Callback):
    """Ends the stage at the first loss that is not finite: nothing after it can be trusted."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, *_: Any) -> None:
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if not torch.isfinite(loss):
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            raise LockdecError(
                f"{self.stage}: the loss is {float(loss)} at step {trainer.global_step} "
                f"(learning rate {rate:.2g}); lower {self.stage}.optimizer.learning_rate"
            )


class Checkpoints(L.Callback):
    """Saves the unfinished stage every so many seconds."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds, self._last = path, seconds, time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if time.monotonic() - self._last >= self.seconds and trainer.global_step < trainer.max_steps:
            trainer.save_checkpoint(self.path)
            self._last = time.monotonic()


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside the old one and renames it, so that a kill leaves one that is whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        temporary = Path(path).with_name(f".{Path(path).name}.{os.getpid()}")
        super().save_checkpoint(checkpoint, temporary, storage_options)
        temporary.replace(path)


class ProgressBar(L.Callback):
    """A rich bar with the loss, once the stage has taken two seconds."""

    def __init__(self, stage: str, steps: int) -> None:
        self.stage, self.steps = stage, steps
        self._bar, self._task = progress(), TaskID(-1)

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._bar.start()
        self._task = self._bar.add_task(self.stage, total=self.steps, completed=trainer.global_step, note="")

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step % LOG_EVERY == 0:
            loss = trainer.callback_metrics.get(f"{self.stage}/loss")
            note = "" if loss is None else f"loss {float(loss):.3f}"
            self._bar.update(self._task, completed=trainer.global_step, note=note)

    def on_train_end(self, *_: Any) -> None:
        self._bar.stop()

    def on_exception(self, *_: Any) -> None:
        self._bar.stop()
