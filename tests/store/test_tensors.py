"""Tensors on disk: the same when read again, and nothing else is accepted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lockdec.errors import StoreError
from lockdec.store.tensors import (
    fingerprinted,
    load_fitting,
    load_module,
    load_tensors,
    made_of,
    map_weights,
    save_tensors,
    stream_tensors,
)
from lockdec.transformer.configuration import DecoderConfig
from lockdec.transformer.models import LockingDecoderModel


class Table(nn.Linear):
    """A layer with a table that it computes itself."""

    def __init__(self) -> None:
        super().__init__(2, 3)
        self.register_buffer("table", torch.zeros(10**6, 10**6), persistent=False)


def test_tensors_of_any_layout_come_back_equal(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.randn(3, 4).T.requires_grad_(), "b": torch.ones(2, dtype=torch.bfloat16)}
    save_tensors(tensors, tmp_path / "t")
    loaded = load_tensors(tmp_path / "t")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_what_an_artifact_s_weights_are_made_of(tmp_path: Path) -> None:
    (tmp_path / "hosted").mkdir()
    save_tensors({"a": torch.ones(2, 3), "b": torch.ones(5).bfloat16()}, tmp_path / "a.safetensors")
    save_tensors({"c": torch.ones(4).bfloat16(), "d": torch.ones(7).long()}, tmp_path / "hosted" / "b.safetensors")
    assert made_of(tmp_path) == {"float32": 24, "bfloat16": 18, "I64": 56}
    assert made_of(tmp_path / "nowhere") == {}


def test_weights_of_another_module_are_refused_by_name(tmp_path: Path) -> None:
    save_tensors(nn.Linear(2, 3).state_dict(), tmp_path / "t")
    with pytest.raises(StoreError, match="t: not the weights of a Linear"):
        load_module(lambda: nn.Linear(3, 2), tmp_path / "t")


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda: nn.Linear(10**12, 10**6), r"bias has shape \[3\], not \[1000000\]"),
        (lambda: nn.ModuleList(nn.Linear(2, 2) for _ in range(10**9)), "its 2 tensors are too few"),
        (Table, "needs tables of 1,000,000,000,000 numbers"),
    ],
)
def test_sizes_that_a_file_does_not_have_take_no_memory(
    build: Callable[[], nn.Module], problem: str, tmp_path: Path
) -> None:
    save_tensors(nn.Linear(2, 3).state_dict(), tmp_path / "t")
    with pytest.raises(StoreError, match=problem):
        load_module(build, tmp_path / "t")


def test_a_file_cut_short_is_refused_by_name(tmp_path: Path) -> None:
    save_tensors({"a": torch.ones(100)}, tmp_path / "t")
    (tmp_path / "t").write_bytes((tmp_path / "t").read_bytes()[:-4])
    with pytest.raises(StoreError, match="t: not a file of tensors"):
        load_tensors(tmp_path / "t")


def test_streamed_tensors_are_those_that_came(tmp_path: Path) -> None:
    path, drawn = tmp_path / "streamed.safetensors", torch.Generator().manual_seed(0)
    kinds = {"a": torch.float32, "b.weight": torch.bfloat16, "c": torch.float16}
    tensors = {name: torch.randn(3, 5, generator=drawn).to(kind).T for name, kind in kinds.items()}
    tensors["one"] = torch.tensor(2.0)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    stream_tensors(iter(tensors.items()), shapes, path)
    for name, tensor in load_tensors(path).items():
        assert tensor.dtype == tensors[name].dtype
        assert torch.equal(tensor, tensors[name])
    with pytest.raises(ValueError, match=r"one did not come"):
        stream_tensors(((name, tensors[name]) for name in kinds), shapes, path)
    with pytest.raises(ValueError, match=r"a of shape \(2,\) does not belong"):
        stream_tensors(iter([("a", torch.zeros(2))]), shapes, path)
    assert [path.name for path in tmp_path.iterdir()] == ["streamed.safetensors"]


def test_mapped_weights_are_float32_and_are_those_of_the_file(tmp_path: Path) -> None:
    path, module = tmp_path / "weights.safetensors", torch.nn.Linear(5, 3)
    kept = {name: weight.detach().bfloat16() for name, weight in module.named_parameters()}
    save_tensors(kept, path)
    with torch.device("meta"):
        loaded = torch.nn.Linear(5, 3)
    map_weights(loaded, load_fitting(lambda: torch.nn.Linear(5, 3), path))
    for name, weight in loaded.named_parameters():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, kept[name].float())
    with pytest.raises(StoreError, match=r"not the weights of a Linear of the sizes beside it \(weight has shape"):
        load_fitting(lambda: torch.nn.Linear(4, 3), path)


def test_part_of_a_state_is_read_beside_the_rest_of_it(tmp_path: Path) -> None:
    save_tensors({"part.weight": torch.ones(3, 5)}, tmp_path / "t")
    read = load_fitting(lambda: torch.nn.Linear(5, 3), tmp_path / "t", "part.", {"bias": torch.zeros(3)})
    assert read.keys() == {"weight"}
    with pytest.raises(StoreError, match=r"not the weights of a Linear \(bias is not there\)"):
        load_fitting(lambda: torch.nn.Linear(5, 3), tmp_path / "t", "part.")


def test_a_decoder_whose_tensors_have_former_names_is_read_and_keeps_its_fingerprint(tmp_path: Path) -> None:
    """The first projection of a feed-forward network was once `widen`."""
    model = LockingDecoderModel(DecoderConfig(vocab_size=9, d_model=8, layers=2, heads=2, d_ff=12))
    former = {name.replace("forward.input.", "forward.widen."): t for name, t in model.state_dict().items()}
    assert former.keys() != model.state_dict().keys()
    save_tensors(former, tmp_path / "t")
    read = load_module(lambda: LockingDecoderModel(model.config), tmp_path / "t").state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in model.state_dict().items())
    found = [(name, content.tobytes()) for name, _, content in fingerprinted(model.state_dict())]
    assert found == [(name, tensor.numpy().tobytes()) for name, tensor in sorted(former.items())]
