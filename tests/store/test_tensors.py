"""Tensors on disk: the same when read again, and nothing else is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from lockdec.errors import StoreError
from lockdec.store.tensors import load_tensors, load_weights, save_tensors


def test_tensors_of_any_layout_come_back_equal(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.randn(3, 4).T.requires_grad_(), "b": torch.ones(2, dtype=torch.bfloat16)}
    save_tensors(tensors, tmp_path / "t")
    loaded = load_tensors(tmp_path / "t")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_weights_of_another_module_are_refused_by_name(tmp_path: Path) -> None:
    save_tensors(nn.Linear(2, 3).state_dict(), tmp_path / "t")
    with pytest.raises(StoreError, match="t: not the weights of a Linear"):
        load_weights(nn.Linear(3, 2), tmp_path / "t")


def test_a_file_cut_short_is_refused_by_name(tmp_path: Path) -> None:
    save_tensors({"a": torch.ones(100)}, tmp_path / "t")
    (tmp_path / "t").write_bytes((tmp_path / "t").read_bytes()[:-4])
    with pytest.raises(StoreError, match="t: not a file of tensors"):
        load_tensors(tmp_path / "t")
