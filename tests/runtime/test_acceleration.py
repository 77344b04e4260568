"""Freed memory serves again; the faster library multiplies, if it keeps 32 bits; what a GPU's settings change on any
device: TF32 in 16 bits alone, compiled layers.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lockdec.config.schema import TrainerConfig
from lockdec.runtime.acceleration import accelerated, exact_products, multiply_exactly
from tests.conftest import composed
from tests.faults.warm import Warm
from tests.transformer.tiny_transformers import locking_model

PLAIN = TrainerConfig("cpu", 1, "32-true", None, 20.0)


@pytest.mark.parametrize(("precision", "shortened"), [("32-true", False), ("bf16-mixed", True), ("16-mixed", True)])
def test_only_16_bit_training_may_shorten_what_stays_in_32_bits(precision: str, shortened: bool) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with accelerated(locking_model(), replace(PLAIN, precision=precision)):
        assert (torch.get_float32_matmul_precision() == "high") == shortened
        assert torch.backends.cudnn.allow_tf32 == shortened  # for convolutions
        if not shortened:
            a, b = torch.randn(64, 192), torch.randn(192, 192)
            assert (a @ b - a.double() @ b.double()).abs().max() < 1e-5 * (a @ b).abs().max()
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


@pytest.fixture
def asked_anew() -> Iterator[None]:
    """What this machine's products are like is found out once a process; here before and after the test."""
    exact_products.cache_clear()
    yield
    exact_products.cache_clear()


@pytest.fixture
def multiplying_as_a_run() -> Iterator[None]:
    multiply_exactly()
    yield
    torch.set_float32_matmul_precision("highest")


SHAPES = [(2, 3, 4), (1, 192, 768), (64, 192, 192), (189, 768, 192), (500, 149, 256), (33, 2048, 17)]


@pytest.mark.usefixtures("multiplying_as_a_run")
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_products_keep_32_bits_whichever_library_computes_them(m: int, k: int, n: int) -> None:
    for a, b in ((torch.randn(m, k), torch.randn(k, n)), (torch.randn(6, k, m).mT, torch.randn(6, n, k).mT)):
        exact = a.double() @ b.double()
        assert (a @ b - exact).abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.usefixtures("asked_anew")
def test_a_library_that_keeps_32_bits_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    multiply = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: multiply(a.double(), b.double()).to(a.dtype))
    assert exact_products() == "medium"


@pytest.mark.usefixtures("asked_anew")
def test_a_library_that_shortens_products_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    multiply = torch.Tensor.__matmul__

    def shortened(a: Tensor, b: Tensor) -> Tensor:
        if torch.get_float32_matmul_precision() != "medium" or a.dtype != torch.float32:
            return multiply(a, b)
        return multiply(a.bfloat16(), b.bfloat16()).float()

    monkeypatch.setattr(torch.Tensor, "__matmul__", shortened)
    assert exact_products() == "highest"
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.usefixtures("asked_anew")
def test_where_there_is_a_gpu_it_is_not_told_to_shorten_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert exact_products() == "highest"


COMPILED = """
import torch
from lockdec.runtime.acceleration import accelerated
from lockdec.config.schema import TrainerConfig
from lockdec.modules.losses import next_token_loss
from tests.transformer.tiny_transformers import locking_model, token_batch

plain, compiled = locking_model(layers=1), locking_model(layers=1)
with accelerated(compiled, TrainerConfig("cpu", 1, "32-true", None, 20.0, compile=True), backend="eager"):
    for length in (7, 5):
        losses = [next_token_loss(model, token_batch(length=length), eos_id=2)[0] for model in (plain, compiled)]
        torch.testing.assert_close(losses[1], losses[0])
        torch.autograd.backward(losses)
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1, "traced once, for both lengths"
assert list(compiled.state_dict()) == list(plain.state_dict())
for one, other in zip(compiled.parameters(), plain.parameters(), strict=True):
    torch.testing.assert_close(one.grad, other.grad)
"""


COMPILED_STEP = """
import torch
from lockdec.transformer.fast.products import products, step_attention

torch.set_float32_matmul_precision("medium")
query, key = torch.randn(2, 3, 1, 4), torch.randn(2, 3, 5, 4)
compiled = torch.compile(step_attention, backend="eager", fullgraph=True)  # an error where the graph would break
torch.testing.assert_close(compiled(query, key, key), products(query, key, key))
"""


# In a process of their own: the checks of types and shapes that tests run with cannot be traced.
def test_attention_of_a_step_is_compiled_in_one_graph(warm: Warm, tmp_path: Path) -> None:
    done = warm.python(COMPILED_STEP, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_compiled_layers_have_the_same_names_losses_and_gradients(warm: Warm, tmp_path: Path) -> None:
    done = warm.python(COMPILED, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_gpu_trainer_asks_for_16_bits() -> None:
    trainer = composed("trainer=gpu").trainer
    assert (trainer.precision, trainer.compile) == ("bf16-mixed", False)


FAULTS = """
import resource
import sys
import torch
from lockdec.runtime.acceleration import keep_memory

if sys.argv[1] == "kept":
    keep_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(2**24)  # 64 MiB, freed at once: more than glibc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_freed_memory_serves_the_next_tensors() -> None:
    def faults(how: str) -> int:
        return int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True).stdout)

    assert faults("kept") < 100 < faults("as it is")
