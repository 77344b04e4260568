"""What is measured beside training: how often, how large the gradient is, and how fast tokens are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn

from lockdec.training.fit import fit
from lockdec.training.watching import LOG_EVERY, PULSE_EVERY, Pulse, is_logged
from tests.training.test_fit import CPU

STEPS = 2 * PULSE_EVERY + 3


class Recorder(DummyLogger):
    """Keeps what is logged, by step."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: Any, step: Any = None, **_: Any) -> None:
        self.rows.append((step, dict(metrics)))

    def of(self, name: str) -> dict[int, float]:
        return {step: metrics[name] for step, metrics in self.rows if name in metrics}


class Batch(NamedTuple):
    """As the batches of text are: tokens, and something else of another shape."""

    tokens: Tensor
    weight: Tensor


class Slope(L.LightningModule):
    """Two weights whose gradients are 3 and 4 times the step."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.logged: list[bool] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.logged.append(is_logged(self.trainer))
        return ((3 * self.one + 4 * self.other) * (self.global_step + 1)).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Batches(L.LightningDataModule):
    """5 rows of 7 tokens in each."""

    def train_dataloader(self) -> Any:
        batches: Any = [Batch(torch.ones(5, 7, dtype=torch.long), torch.ones(5, 9))] * STEPS
        return torch.utils.data.DataLoader(batches, batch_size=None)


@pytest.fixture
def watched(tmp_path: Path) -> tuple[Slope, Recorder]:
    module, recorder = Slope(), Recorder()
    fit(
        module,
        Batches(),
        stage="stage",
        folder=tmp_path,
        loggers=[recorder],
        steps=STEPS,
        seed=0,
        clip_norm=1.0,
        trainer=CPU,
    )
    return module, recorder


def test_every_tenth_step_and_the_last_are_logged(watched: tuple[Slope, Recorder]) -> None:
    module, _ = watched
    assert [step for step, logged in enumerate(module.logged, 1) if logged] == [LOG_EVERY, 2 * LOG_EVERY, STEPS]


def test_the_norm_of_the_gradient_is_that_before_clipping(watched: tuple[Slope, Recorder]) -> None:
    _, recorder = watched
    wanted = {PULSE_EVERY * n - 1: 5.0 * PULSE_EVERY * n for n in (1, 2)}
    assert recorder.of("stage/gradient_norm") == pytest.approx(wanted)


def test_only_tokens_count_as_tokens(watched: tuple[Slope, Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    """At a clock that moves a second with each look at it."""
    _, recorder = watched
    assert recorder.of("stage/tokens_per_second").keys() == {PULSE_EVERY - 1, 2 * PULSE_EVERY - 1}
    seconds = iter(range(100))
    monkeypatch.setattr("time.monotonic", lambda: float(next(seconds)))
    trainer = L.Trainer(logger=[recorder], accelerator="cpu", enable_checkpointing=False)
    pulse = Pulse("stage")
    pulse.on_train_start()
    monkeypatch.setattr(L.Trainer, "global_step", PULSE_EVERY)
    recorder.rows.clear()
    pulse.on_train_batch_end(trainer, Slope(), None, Batch(torch.ones(5, 7, dtype=torch.long), torch.ones(5, 9)))
    assert list(recorder.of("stage/tokens_per_second").values()) == [35.0]
