"""What only a GPU can show: that `trainer=gpu` trains, and that a GPU gives what the CPU gives.  make gpu

The suite runs without one; there tests/runtime/second_device.py stands for it.
"""

from __future__ import annotations

import csv
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import lockdec
from lockdec.config.building import Builder
from lockdec.config.checking import plain
from lockdec.data.openmoji import OpenMoji
from lockdec.pipeline.assembling import build_stages
from lockdec.runtime.devices import exact, place_on
from lockdec.stages.stage import Work
from lockdec.store import CHECKPOINT, Store
from tests.conftest import TinyRun, composed, run_tiny
from tests.encoders.kinds import KINDS
from tests.faults.causes import Fault
from tests.faults.conftest import essence
from tests.faults.warm import Warm
from tests.runtime.second_device import numbers

GPU = torch.device("cuda")
LOGS = "logger.kinds=[csv]"
EXACT = ("trainer.accelerator=gpu", LOGS)  # in 32 bits, as on a CPU
STILL = ("decoder.dropout=0", "finetune.state_dropout=0", "finetune.state_noise=0")  # devices draw other numbers


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A tiny run without anything random in its steps."""
    return run_tiny(tmp_path_factory.mktemp("cpu"), "cpu", LOGS, *STILL)


@pytest.fixture(scope="module")
def on_gpu(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """The same, all of it on the GPU."""
    return run_tiny(tmp_path_factory.mktemp("gpu"), "gpu", *EXACT, *STILL)


def curve(run: TinyRun, stage: str) -> list[float]:
    """The losses of training."""
    with (run.folder / "stages" / stage / "metrics.csv").open(encoding="utf-8") as file:
        losses = [row[f"{stage}/loss"] for row in csv.DictReader(file)]
    return [float(loss) for loss in losses if loss]


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "32-true"])
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "eager"])
def test_every_precision_of_trainer_gpu_trains(precision: str, compiled: bool, tmp_path: Path) -> None:
    options = (f"trainer.precision={precision}", f"trainer.compile={str(compiled).lower()}", LOGS)
    run = run_tiny(tmp_path, "run", "trainer=gpu", *options)
    assert run.result["status"] == "ok"
    assert run.result["frozen"] == {"encoder_ok": True, "decoder_ok": True}
    read, taught = curve(run, "pretrain"), curve(run, "finetune")
    assert all(map(math.isfinite, [*read, *taught]))
    assert read[-1] < read[0]


@pytest.mark.parametrize("encoder", ["vae", "vqvae", "mlm"])
def test_encoders_that_are_trained_here_train_on_it(encoder: str, tmp_path: Path) -> None:
    data = ("data=tunes", "data.limit=64") if encoder == "mlm" else ("data.limit=64",)
    run = run_tiny(tmp_path, "run", "trainer=gpu", "trainer.compile=false", LOGS, f"encoder={encoder}", *data)
    assert run.result["status"] == "ok"


def test_32_bits_on_a_gpu_are_those_of_a_cpu_up_to_rounding(on_cpu: TinyRun, on_gpu: TinyRun) -> None:
    assert {name: stage["key"] for name, stage in on_gpu.result["stages"].items()} == {
        name: stage["key"] for name, stage in on_cpu.result["stages"].items()
    }
    for stage in ("pretrain", "finetune"):
        assert curve(on_gpu, stage) == pytest.approx(curve(on_cpu, stage), rel=1e-3)
    assert on_gpu.result["metrics"]["loss"] == pytest.approx(on_cpu.result["metrics"]["loss"], rel=1e-3)


@pytest.mark.parametrize("stage", ["attach", "unlock", "prior", "evaluate"])
def test_a_stage_makes_on_it_what_it_makes_on_a_cpu(stage: str, on_cpu: TinyRun, tmp_path: Path) -> None:
    config = composed("debug=tiny", f"paths.outputs={on_cpu.outputs}", *STILL)
    stages = build_stages({name: plain(config.stages[name]) for name in config.pipeline.order}, Builder())
    store = Store(on_cpu.outputs / "stages")
    parents = {name: store.open(name, entry["key"]) for name, entry in on_cpu.result["stages"].items()}
    with exact():
        made = stages[stage].make(Work(stage, tmp_path, parents, [], GPU))
    known = {name: value for name, value in numbers(parents[stage].metrics).items() if "seconds" not in name}
    found = {name: value for name, value in numbers(made).items() if "seconds" not in name}
    assert found == pytest.approx(known, rel=1e-3, abs=1e-5)
    if stage == "evaluate":
        assert (tmp_path / "captions.jsonl").read_bytes() == parents[stage].path("captions.jsonl").read_bytes()


@pytest.mark.parametrize("name", list(KINDS))
def test_an_encoder_gives_the_states_of_a_cpu(name: str, tmp_path: Path) -> None:
    kind = KINDS[name](tmp_path)
    with exact():
        expected = kind.encoder.encode(kind.inputs)
        place_on(kind.encoder, GPU)
        encoded = kind.encoder.encode(kind.inputs)
    torch.testing.assert_close(encoded.states.cpu(), expected.states, rtol=1e-3, atol=1e-4)
    assert torch.equal(encoded.mask.cpu(), expected.mask)


@pytest.mark.parametrize("options", [{}, {"strategy": "beam", "beams": 3}], ids=["greedy", "beam"])
def test_captions_on_it_are_those_of_a_cpu(options: dict[str, Any], on_cpu: TinyRun) -> None:
    """Drawn captions are not: among equally likely tokens, as of this decoder, rounding decides which is drawn."""
    drawings = OpenMoji(resolution=64, limit=64).inputs(range(6))
    here, there = (lockdec.load(on_cpu.folder, device=device) for device in ("cpu", "cuda"))
    for expected, found in zip(here.caption(drawings, **options), there.caption(drawings, **options), strict=True):
        assert found.text == expected.text
        assert found.log_prob == pytest.approx(expected.log_prob, rel=1e-3)
        torch.testing.assert_close(found.attention.weights, expected.attention.weights, rtol=0, atol=1e-3)


def test_training_that_was_stopped_ends_as_if_it_was_not(warm: Warm, tmp_path: Path) -> None:
    options = (*EXACT, "trainer.checkpoint_seconds=0")
    whole = warm.run(tmp_path / "whole", *options, fault=Fault(stage="*"))
    fault = Fault(stage="finetune", after=CHECKPOINT, event=2, number=signal.SIGTERM)
    stopped = warm.start(tmp_path / "stopped", *options, fault=fault)
    assert stopped.wait() == 143, stopped.printed
    again = warm.run(tmp_path / "stopped", *options)
    assert essence(again) == essence(whole)


def test_a_model_that_is_larger_than_its_memory_stays_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(0, free - 2**30), dtype=torch.uint8, device=GPU)
    try:
        model = torch.nn.Linear(2**15, 2**14, bias=False)  # 2 GiB
        assert place_on(model, GPU) == torch.device("cpu")
    finally:
        del held
        torch.cuda.empty_cache()
    assert "Linear does not fit on cuda, so it runs on the CPU" in capsys.readouterr().out
