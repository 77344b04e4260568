"""Which device a run works on, and that what no Trainer does works on any and gives what it gives on the CPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch.accelerators.cuda import CUDAAccelerator
from torch import Tensor, nn

from lockdec.config.building import Builder
from lockdec.config.checking import plain
from lockdec.config.schema import TrainerConfig
from lockdec.errors import ConfigError
from lockdec.evaluation.attention_statistics import attention_statistics
from lockdec.modules.losses import next_token_loss
from lockdec.pipeline.assembling import build_stages
from lockdec.pipeline.running import run
from lockdec.runtime.acceleration import exact_products
from lockdec.runtime.devices import device_of, exact, place_on, tell_unused
from lockdec.stages.attach import Attach
from lockdec.stages.stage import Stage, Work
from lockdec.store import Store
from lockdec.transformer.models import Encoded
from tests.conftest import TinyRun, composed
from tests.encoders.kinds import KINDS
from tests.runtime.second_device import SECOND, Devices, There, numbers, second_device
from tests.transformer.tiny_transformers import ENCODER_DIM, cross_attention_config, force_open, locking_model

TRAINER = TrainerConfig("cpu", 1, "32-true", None, 20.0)
GPU = torch.cuda.is_available() or torch.mps.is_available()


@pytest.fixture
def devices() -> Iterator[Devices]:
    with second_device() as devices:
        yield devices


def test_the_second_device_holds_apart_what_a_gpu_would(devices: Devices) -> None:
    here, there = torch.randn(3, 4), torch.ones(3, 4).to(SECOND)
    assert (there @ there.mT).device == torch.arange(3, device=SECOND).device == SECOND
    with pytest.raises(RuntimeError, match="one device"):
        here + there
    with pytest.raises(RuntimeError, match="one device"):
        nn.Linear(4, 2).to(SECOND)(here)
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    assert torch.equal((there * torch.tensor(2.0)).cpu(), torch.full((3, 4), 2.0))


def test_a_run_works_where_its_trainer_trains() -> None:
    assert device_of(TRAINER) == torch.device("cpu")
    there = torch.accelerator.current_accelerator(check_available=True)
    assert device_of(replace(TRAINER, accelerator="auto")).type == (there.type if there else "cpu")


@pytest.mark.skipif(GPU, reason="there is a GPU")
@pytest.mark.parametrize(("choice", "wanted"), [("trainer=gpu", "gpu"), ("trainer.accelerator=cuda", "cuda")])
def test_a_device_that_is_not_there_is_refused_before_any_work(choice: str, wanted: str, tmp_path: Path) -> None:
    config = composed("debug=tiny", choice, f"paths.outputs={tmp_path}")
    with pytest.raises(ConfigError, match=rf"^trainer\.accelerator={wanted}: .* use one of: cpu, auto$"):
        run(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["stages"] == {}
    assert not (tmp_path / "stages").exists()


def test_a_gpu_that_is_not_asked_for_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CUDAAccelerator, "is_available", lambda: True)
    tell_unused.cache_clear()
    for accelerator in ("gpu", "cpu", "cpu"):
        tell_unused(accelerator)
    tell_unused.cache_clear()
    assert capsys.readouterr().out == "  This machine has a GPU (cuda), which trainer=gpu would use\n"


@dataclass(frozen=True, kw_only=True)
class WhereItWorks(Stage):
    """Says on which device it was told to compute."""

    name: ClassVar[str] = "where"
    version: ClassVar[int] = 1

    def make(self, work: Work) -> dict[str, Any]:
        return {"worked": {"device": str(work.device), "convolutions": torch.backends.cudnn.allow_tf32}}


def test_the_pipeline_tells_stages_the_device_and_has_them_work_exactly(tmp_path: Path) -> None:
    stage = f"+stages.where={{_target_: {WhereItWorks.__module__}.WhereItWorks}}"
    config = composed("debug=tiny", stage, "pipeline.order=[where]", f"paths.outputs={tmp_path}")
    assert run(config, tmp_path / "run")["worked"] == {"device": "cpu", "convolutions": False}


def test_32_bits_are_32_bits_and_nothing_is_refused_that_a_trainer_refused() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=True), exact():
            assert not torch.backends.cudnn.allow_tf32
            assert torch.backends.cudnn.deterministic
            assert torch.get_float32_matmul_precision() == exact_products()
            assert not torch.are_deterministic_algorithms_enabled()
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_model_that_does_not_fit_stays_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    class Huge(nn.Linear):
        def to(self, device: Any) -> Huge:  # type: ignore[override]
            if torch.device(device).type != "cpu":
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self

    assert place_on(Huge(2, 2), SECOND) == torch.device("cpu")
    assert "Huge does not fit on meta, so it runs on the CPU" in capsys.readouterr().out


@pytest.mark.parametrize("name", list(KINDS))
def test_an_encoder_follows_its_weights(name: str, tmp_path: Path, devices: Devices) -> None:
    kind = KINDS[name](tmp_path)
    expected, before = kind.encoder.encode(kind.inputs), kind.encoder.fingerprint
    has_weights = bool(kind.encoder.state_dict())
    assert place_on(kind.encoder, SECOND) == SECOND
    encoded = kind.encoder.encode(kind.inputs)
    assert isinstance(encoded.states, There) == isinstance(encoded.mask, There) == has_weights
    torch.testing.assert_close(encoded.states.cpu(), expected.states, rtol=1e-4, atol=1e-5)
    assert torch.equal(encoded.mask.cpu(), expected.mask)
    assert kind.encoder.fingerprint == before


@pytest.mark.parametrize(
    ("position", "options"),
    [
        ("learned", {"strategy": "greedy", "no_repeat_ngram": 2, "repetition_penalty": 1.3, "min_new_tokens": 2}),
        ("sinusoidal", {"strategy": "greedy"}),
        ("learned", {"strategy": "beam", "beams": 3}),
        ("rope", {"strategy": "beam", "beams": 3}),
        ("rope", {"strategy": "nucleus", "top_p": 0.9}),
        ("sinusoidal", {"strategy": "top_k", "top_k": 5}),
    ],
)
def test_a_captioner_generates_the_same_on_any_device(position: str, options: dict[str, Any], devices: Devices) -> None:
    model = locking_model(position=position)
    model.attach(cross_attention_config(), ENCODER_DIM)
    force_open(model)
    model.unlock()
    mask = torch.arange(5) < torch.tensor([[5], [2], [4], [3]])
    encoded = Encoded(torch.randn(4, 5, ENCODER_DIM, generator=torch.Generator().manual_seed(0)), mask)
    tokens = torch.randint(3, 20, (4, 6), generator=torch.Generator().manual_seed(1))

    def measured(device: torch.device) -> tuple[Tensor, list[float], dict[str, float]]:
        model.to(device)
        there, read = encoded.to(device), tokens.to(device)
        written = model.generate(
            there, bos_id=1, eos_id=2, pad_id=0, max_new_tokens=8, generator=torch.Generator().manual_seed(2), **options
        )
        losses = [float(next_token_loss(model, read, 2, there, pack=pack)[0]) for pack in (False, True)]
        return written.cpu(), losses, attention_statistics(model, read, there, 2)

    expected, found = measured(torch.device("cpu")), measured(SECOND)
    assert torch.equal(found[0], expected[0])
    assert found[1] == pytest.approx(expected[1], rel=1e-5)
    assert found[2] == pytest.approx(expected[2], rel=1e-5)


def test_stages_make_on_another_device_what_they_make_on_the_cpu(
    tiny: TinyRun, tmp_path: Path, devices: Devices
) -> None:
    config = composed("debug=tiny", f"paths.outputs={tiny.outputs}")
    stages = build_stages({name: plain(config.stages[name]) for name in config.pipeline.order}, Builder())
    store = Store(tiny.outputs / "stages")
    parents = {name: store.open(name, entry["key"]) for name, entry in tiny.result["stages"].items()}
    for name in ("attach", "unlock", "evaluate"):
        folder = tmp_path / name
        folder.mkdir()
        devices.products.clear()
        made = stages[name].make(Work(name, folder, parents, [], SECOND))
        # Drawing weights, normalising and comparing with the inputs of the support set are the CPU's.
        assert devices.products["cpu"] < 10 < devices.products[SECOND.type], name
        assert numbers(made) == pytest.approx(numbers(parents[name].metrics), rel=1e-5)
        for file in ("states.npy", "normalisation.safetensors", "cross_attention.safetensors", "captions.jsonl"):
            if (folder / file).exists():
                assert (folder / file).read_bytes() == parents[name].path(file).read_bytes()
    for ours, theirs in zip(looks(tmp_path / "evaluate"), looks(parents["evaluate"].folder), strict=True):
        assert (ours["id"], ours["words"]) == (theirs["id"], theirs["words"])
        torch.testing.assert_close(torch.tensor(ours["weights"]), torch.tensor(theirs["weights"]), rtol=0, atol=1e-4)
    attach = stages["attach"]
    assert isinstance(attach, Attach)
    assert isinstance(attach.encoder, nn.Module)
    assert {weight.device.type for weight in attach.encoder.parameters()} == {"cpu"}


def looks(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "attention.jsonl").read_text(encoding="utf-8").splitlines()]
