"""Several ranks train as one process does; one that is killed ends the others, and the next start continues."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from lockdec.config.building import Builder
from lockdec.config.checking import plain
from lockdec.config.schema import TrainerConfig
from lockdec.distributed import ranks
from lockdec.distributed.ranks import Started
from lockdec.errors import ConfigError
from lockdec.pipeline.assembling import build_stages
from lockdec.pipeline.keys import stage_keys
from lockdec.store import CHECKPOINT
from tests.conftest import composed
from tests.faults.causes import Fault
from tests.faults.conftest import bring, leftovers
from tests.faults.test_signals import wait_for
from tests.faults.warm import STEPS, TINY, Command, Warm
from tests.sweeps.sweeping import cell_results

# Without dropout, whose draws differ between ranks; the noise on states is drawn for the whole batch and stays.
# One process runs the layer below cross-attention once for each caption, several ranks run it in every step.
SAME = ("decoder.dropout=0", "logger.kinds=[csv]", "cross_attention.layers=last_1")
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo"}
WORLD = 2


class Ranks:
    """Two ranks as torchrun starts them; this process keeps the store at which they meet, as torchrun does."""

    def __init__(self, warm: Warm, outputs: Path, strategy: str, *overrides: str, fault: Fault | None = None) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        self._meeting: Any = distributed.TCPStore(  # type: ignore[attr-defined]
            "127.0.0.1", port, None, True, timedelta(minutes=2), False, master_listen_fd=listening.detach()
        )
        self.commands = [
            warm.start(
                outputs,
                *SAME,
                f"trainer={strategy}",
                "trainer.accelerator=cpu",
                *overrides,
                fault=fault if rank == 0 else None,
                TORCHELASTIC_RUN_ID="test",
                TORCHELASTIC_USE_AGENT_STORE="True",
                TORCHELASTIC_RESTART_COUNT="0",
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
                RANK=str(rank),
                WORLD_SIZE=str(WORLD),
                LOCAL_RANK=str(rank),
                LOCAL_WORLD_SIZE=str(WORLD),
                **LOOPBACK,
            )
            for rank in range(WORLD)
        ]

    @property
    def first(self) -> Command:
        return self.commands[0]

    def wait(self) -> list[int]:
        """The exit status of each."""
        return [command.wait() for command in self.commands]


@pytest.fixture(scope="module")
def alone(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """What one process makes of it; tests read it and leave it as it is."""
    return warm.run(tmp_path_factory.mktemp("alone") / "outputs", *SAME)


def curve(command: Command, stage: str) -> list[dict[str, float]]:
    path = next(command.outputs.glob(f"stages/{stage}/*/metrics.csv"))
    with path.open() as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def weights(command: Command, stage: str) -> dict[str, torch.Tensor]:
    return load_file(next(command.outputs.glob(f"stages/{stage}/*/*.safetensors")))


Together = Callable[[str], Command]


@pytest.fixture(scope="module")
def together(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Together:
    """What two ranks make of it by a strategy, run once; tests read it and leave it as it is."""

    @cache
    def run(strategy: str) -> Command:
        started = Ranks(warm, tmp_path_factory.mktemp(strategy) / "outputs", strategy)
        assert started.wait() == [0, 0], [command.printed for command in started.commands]
        return started.first

    return run


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_have_the_loss_curve_and_the_weights_of_one_process(
    strategy: str, together: Together, alone: Command
) -> None:
    """At equal global batch: the batches have a row more for one rank, lengths differ, and states are noisy."""
    both = together(strategy)
    assert {name: stage["key"] for name, stage in both.result["stages"].items()} == {
        name: stage["key"] for name, stage in alone.result["stages"].items()
    }
    for stage in ("pretrain", "finetune"):
        ours, wanted = curve(both, stage), curve(alone, stage)
        assert len(ours) >= 2
        for row, other in zip(ours, wanted, strict=True):
            assert row.pop(f"{stage}/real_token_share", 1) == pytest.approx(
                other.pop(f"{stage}/real_token_share", 1), abs=0.2
            )
            assert row == pytest.approx(other, rel=1e-5)
        for name, weight in weights(alone, stage).items():
            # Adam divides by the size of gradients: where these are next to nothing, their rounding counts.
            torch.testing.assert_close(weights(both, stage)[name], weight, rtol=1e-3, atol=2e-4)
    assert both.result["metrics"]["loss"] == pytest.approx(alone.result["metrics"]["loss"], rel=1e-5)
    assert both.result["frozen"] == {"encoder_ok": True, "decoder_ok": True}
    assert leftovers(both.outputs) == []


@pytest.mark.parametrize(("strategy", "stage"), [("ddp", "pretrain"), ("fsdp", "pretrain"), ("fsdp", "finetune")])
def test_a_killed_rank_ends_the_others_and_the_next_start_continues(
    strategy: str, stage: str, warm: Warm, together: Together, tmp_path: Path
) -> None:
    """Killed while it saves its sixth checkpoint: what comes of it is what comes of two ranks that nobody kills."""
    outputs, whole = tmp_path / "outputs", together(strategy)
    before = {"pretrain": (), "finetune": ("pretrain", "attach", "unlock")}[stage]
    bring(whole, outputs, *before)
    short = (f"pipeline.order=[{','.join([*before, stage])}]",)
    fault = Fault(stage=stage, after=CHECKPOINT, event=11)
    started = Ranks(warm, outputs, strategy, *short, fault=fault)
    began = time.monotonic()
    assert started.wait() == [-signal.SIGKILL, 1]
    assert time.monotonic() - began < 120
    assert "another rank of this job is gone" in started.commands[1].printed
    checkpoint = next(outputs.glob(f"stages/{stage}/*/{CHECKPOINT}"))
    assert 0 < torch.load(checkpoint, weights_only=True)["global_step"] < STEPS[stage]
    assert Ranks(warm, outputs, strategy, *short).wait() == [0, 0]
    resumed = weights(started.first, stage)
    assert all(weight.equal(resumed[name]) for name, weight in weights(whole, stage).items())


def test_one_that_is_asked_to_stop_has_all_save_and_stop(warm: Warm, tmp_path: Path) -> None:
    endless = ("pretrain.steps=100000", "trainer.checkpoint_seconds=1000")
    started = Ranks(warm, tmp_path, "ddp", *endless)
    wait_for(started.first.folder / "stages" / "pretrain" / "metrics.csv")
    started.commands[1].signal(signal.SIGTERM)
    assert started.wait() == [143, 143], [command.printed for command in started.commands]
    assert started.first.result["error"] == "stopped by SIGTERM"
    assert len(list(tmp_path.glob(f"stages/pretrain/*/{CHECKPOINT}"))) == 1


class SignalledEarly(L.Callback):
    """The second rank is asked to stop while Lightning sets itself up, and the first is not."""

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        if trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_one_that_is_asked_to_stop_during_the_set_up_has_all_save_and_stop(warm: Warm, tmp_path: Path) -> None:
    """Lightning's own handler would wait for the first rank, which waits for the second elsewhere."""
    early = f"+callbacks.early._target_={__name__}.{SignalledEarly.__name__}"
    started = Ranks(warm, tmp_path, "ddp", "pretrain.steps=100000", early)
    assert started.wait() == [143, 143], [command.printed for command in started.commands]
    assert started.first.result["error"] == "stopped by SIGTERM"


def test_a_rank_that_is_killed_in_training_fails_the_run(warm: Warm, tmp_path: Path) -> None:
    started = Ranks(warm, tmp_path, "ddp", "pretrain.steps=100000", "trainer.checkpoint_seconds=0")
    wait_for(started.first.folder / "stages" / "pretrain" / "metrics.csv")
    os.kill(started.commands[1].pid, signal.SIGKILL)
    assert started.wait() == [1, -signal.SIGKILL]
    result = started.first.result
    assert (result["status"], "another rank of this job is gone" in result["error"]) == ("failed", True)


def test_a_sweep_of_several_ranks_goes_cell_by_cell_and_reuses_what_one_process_has_made(
    warm: Warm, alone: Command, tmp_path: Path
) -> None:
    """The second of two cells has the config of the one process."""
    known = f"paths.stores=[{alone.outputs / 'stages'}]"
    started = Ranks(warm, tmp_path, "ddp", known, "-m", "cross_attention.d_k=1,2")
    assert started.wait() == [0, 0], [command.printed for command in started.commands]
    assert "2 of 2 cells done" in started.first.printed
    assert started.commands[1].printed == ""
    cells = cell_results(started.first.folder).values()
    made = [[name for name, stage in cell["stages"].items() if not stage["reused"]] for cell in cells]
    assert made == [["unlock", "finetune", "evaluate"], []]


def test_python_starts_the_ranks_itself(alone: Command, tmp_path: Path) -> None:
    """By torchrun, which is what the command becomes."""
    command = [
        sys.executable,
        "-m",
        "lockdec.run",
        *TINY,
        *SAME,
        f"paths.outputs={tmp_path}",
        "pipeline.order=[pretrain]",
    ]
    command += ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    done = subprocess.run(command, env=os.environ | LOOPBACK, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    made = next(tmp_path.glob("stages/pretrain/*"))
    assert made.name == alone.result["stages"]["pretrain"]["key"]
    assert len(list(tmp_path.glob("runs/*/*"))) == 1  # and none of the second rank


def trainer(**changes: Any) -> TrainerConfig:
    known: dict[str, Any] = {"accelerator": "cpu", "devices": None, "precision": "32-true", "checkpoint_seconds": 1.0}
    return TrainerConfig(**known | changes)


@pytest.mark.parametrize(
    ("processes", "config", "wanted"),
    [
        (1, trainer(strategy="ddp"), r"trainer\.strategy=ddp: only one process .* torchrun --nproc-per-node 2"),
        (2, trainer(strategy="auto"), r"trainer\.strategy=auto: 2 processes were started, which only trainer=ddp"),
        (2, trainer(strategy="ddp", devices=4), r"trainer\.devices=4: 2 processes were started"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    processes: int, config: TrainerConfig, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if processes > 1:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ConfigError, match=wanted):
        ranks.require_agreement(config, tmp_path)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_keys_do_not_depend_on_the_strategy(strategy: str) -> None:
    keys = []
    for choice in ("cpu", strategy):
        config = composed("debug=tiny", f"trainer={choice}")
        subtrees = {name: plain(config.stages[name]) for name in config.pipeline.order}
        keys.append(stage_keys(build_stages(subtrees, Builder()), subtrees))
    assert keys[0] == keys[1]


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_the_weighted_mean_of_the_shares_is_the_mean_of_the_batch(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    losses = torch.rand(rows, 5)
    real = torch.arange(5)[None] <= torch.randint(5, (rows, 1))
    weighted = []
    for rank in range(3):
        monkeypatch.setattr(ranks, "_started", Started(rank, 3, rank, 3))
        monkeypatch.setattr(ranks, "_together", True)
        mine, weight = ranks.share(real)
        weighted.append(weight * losses[mine][real[mine]].mean())
    assert float(sum(weighted)) / 3 == pytest.approx(float(losses[real].mean()))
