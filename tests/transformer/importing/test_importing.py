"""Which decoders can be imported, and from which files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2Model

from lockdec.errors import LockdecError
from lockdec.transformer.importing import promised
from lockdec.transformer.models import LockingDecoderModel
from tests.transformer.importing import test_gemma3, test_gpt2, test_llama
from tests.transformer.importing.families import gpt2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GPT2Model(GPT2Config(n_layer=1, n_embd=12, n_head=3)), "not a language model of a family"),
        (lambda: nn.Linear(2, 2), r"Linear: not a language model of a family .*gpt2, llama, qwen2"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(LockdecError, match=message):
        LockingDecoderModel.from_huggingface(make())


def test_only_safetensors_are_read(tmp_path: Path) -> None:
    theirs = gpt2()
    theirs.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(LockdecError, match=r"read from model\.safetensors, and the folder has only pytorch_model\.bin"):
        LockingDecoderModel.from_huggingface(tmp_path)
    with pytest.raises(LockdecError, match="nowhere: no such file or folder"):
        LockingDecoderModel.from_huggingface(tmp_path / "nowhere")
    with pytest.raises(LockdecError, match=r"pytorch_model\.bin: a decoder is a folder or a \.gguf file"):
        LockingDecoderModel.from_huggingface(tmp_path / "pytorch_model.bin")


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    theirs = gpt2()
    weights = {name: tensor for name, tensor in theirs.state_dict().items() if "h.1.ln_2" not in name}
    theirs.save_pretrained(tmp_path, state_dict={k: v for k, v in weights.items() if k != "lm_head.weight"})
    with pytest.raises(
        LockdecError, match=r"the checkpoint lacks transformer.h.1.ln_2.weight, transformer.h.1.ln_2.bias"
    ):
        LockingDecoderModel.from_huggingface(tmp_path)


CHECKPOINTS = test_gpt2.CHECKPOINTS | test_llama.CHECKPOINTS | {"gemma3": lambda: test_gemma3.gemma3(sliding_window=8)}


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "qwen2", "gemma3"])
def test_sizes_that_are_promised_are_those_of_the_decoder(name: str, tmp_path: Path) -> None:
    """They are asked for before any work: a caption that does not fit is refused then."""
    CHECKPOINTS[name]().save_pretrained(tmp_path)
    config = LockingDecoderModel.from_huggingface(tmp_path).config
    assert promised(tmp_path) == {"max_len": config.max_len, "layers": config.layers}
