"""Checkpoints that are not what they say are refused in one line that names the file and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lockdec.errors import LockdecError
from lockdec.transformer.models import LockingDecoderModel
from tests.transformer.importing.families import gpt2


def config(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def weights(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors").write_bytes(
        change((folder / "model.safetensors").read_bytes())
    )


def tensor(change: Callable[[torch.Tensor], torch.Tensor], more: str = "transformer.ln_f.weight") -> Any:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors[more] = change(tensors["transformer.ln_f.weight"])
        save_file(tensors, folder / "model.safetensors")

    return rewrite


def indexed(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (weights(lambda whole: b""), r"model\.safetensors: the file is empty"),
    "a pointer": (weights(lambda whole: b"version https://git-lfs.github.com/spec/v1\n"), "a Git LFS pointer"),
    "cut off": (weights(lambda whole: whole[:-100]), r"bytes, and its header promises [\d,]+: download it again"),
    "something else": (weights(lambda whole: b"PK" + whole), "not a safetensors file"),
    "a missing shard": (indexed, r"model-2\.safetensors is missing, which model\.safetensors\.index\.json names"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: not JSON"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), r"config\.json: a list where an object"),
    "no config": (lambda folder: (folder / "config.json").unlink(), r"config\.json: missing"),
    "no width": (config(n_embd=0), "n_embd=0|no decoder has these|d_model=0"),
    "a negative size": (config(n_inner=-4), "d_ff=-4"),
    "a size in words": (config(n_layer="two"), r"config\.json: not the config of a model"),
    "huge": (config(n_layer=10**9), "num_hidden_layers=1000000000, but its weights are only"),
    "huge positions": (config(n_positions=10**12), "n_positions=1000000000000 is not a whole number from 1 to"),
    "another vocabulary": (config(vocab_size=40), r"wte\.weight is of shape \(31, 12\), but .* \(40, 12\)"),
    "integers": (tensor(lambda old: old.int()), r"transformer\.ln_f\.weight is stored as I32"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_checkpoint_is_refused_in_one_line(fault: str, tmp_path: Path) -> None:
    gpt2().save_pretrained(tmp_path)
    damage, message = FAULTS[fault]
    damage(tmp_path)
    with pytest.raises(LockdecError, match=message) as caught:
        LockingDecoderModel.from_huggingface(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_masks_that_old_versions_stored_are_left_alone(tmp_path: Path) -> None:
    gpt2().save_pretrained(tmp_path)
    tensor(lambda old: torch.ones(2, 2, dtype=torch.bool), "transformer.h.0.attn.bias")(tmp_path)
    assert LockingDecoderModel.from_huggingface(tmp_path).locked
