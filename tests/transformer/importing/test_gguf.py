"""GGUF files are read as transformers reads them, tensor by tensor, and damaged ones are refused in one line."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType
from transformers import AutoModelForCausalLM

from lockdec.data.tokenizer import Tokenizer
from lockdec.errors import LockdecError
from lockdec.transformer.importing import check_files, promised
from lockdec.transformer.models import LockingDecoderModel
from tests.transformer.importing import test_gpt2, test_llama
from tests.transformer.importing.families import tokens
from tests.transformer.importing.gguf_files import write_gguf

CHECKPOINTS = test_gpt2.CHECKPOINTS | test_llama.CHECKPOINTS
IN_GGUF = ["gpt2", "gpt2, exact gelu, eps, untied", "llama", "llama, tied", "qwen2", "qwen3"]


@pytest.mark.parametrize("name", IN_GGUF)
def test_logits_of_a_gguf_file_are_those_of_the_model(name: str, tmp_path: Path) -> None:
    theirs = CHECKPOINTS["gpt2" if name.startswith("gpt2, exact") else name]()
    path = write_gguf(tmp_path / "tiny.gguf", theirs)
    ours = LockingDecoderModel.from_huggingface(path).eval()
    torch.testing.assert_close(ours(tokens()), theirs(tokens()).logits, atol=1e-4, rtol=0)


def test_quantised_weights_are_those_that_transformers_reads(tmp_path: Path) -> None:
    theirs = CHECKPOINTS["llama, wide"]()
    path = write_gguf(tmp_path / "tiny.gguf", theirs, kind=GGMLQuantizationType.Q8_0)
    loader: Any = AutoModelForCausalLM
    expected = loader.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)(tokens()).logits
    assert (expected - theirs(tokens()).logits).abs().max() > 1e-3, "quantising should change something"
    ours = LockingDecoderModel.from_huggingface(path).eval()
    torch.testing.assert_close(ours(tokens()), expected, atol=1e-4, rtol=0)


def test_a_tensor_that_nothing_here_reads_is_refused(tmp_path: Path) -> None:
    """As Llama 3.1 keeps its stretched wavelengths: without them its logits would be others."""
    path = write_gguf(tmp_path / "tiny.gguf", CHECKPOINTS["llama"](), extra={"rope_freqs.weight": torch.ones(2)})
    with pytest.raises(LockdecError, match=r"tiny\.gguf: tensor rope_freqs\.weight has no counterpart in a llama"):
        LockingDecoderModel.from_huggingface(path)


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda whole: b"", r"the file is empty"),
    "a pointer": (lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    "cut off": (lambda whole: whole[:-1000], "cut off or damaged: download it again"),
    "cut off early": (lambda whole: whole[:300], "cut off or damaged"),
    "something else": (lambda whole: b"PK" + whole, "not a GGUF file"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", CHECKPOINTS["gpt2"]())
    change, message = DAMAGE[kind]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(LockdecError, match=rf"tiny\.gguf: .*{message}") as caught:
        LockingDecoderModel.from_huggingface(path)
    assert "\n" not in str(caught.value)


def header(*options: bytes, tensors: int = 0) -> bytes:
    """The start of a GGUF file with these options."""
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, len(options)) + b"".join(options)


def option(name: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header(tensors=2**40), "1,099,511,627,776 tensors"),
        (header(option("a", 9, struct.pack("<IQ", 0, 2**40))), "a list of 1,099,511,627,776 items"),
        (header(*[option(f"a{n}", 9, struct.pack("<IQ", 0, 3_000_000) + bytes(3_000_000)) for n in range(2)]),
         "a list of 3,000,000 items"),
        (header(option("a", 8, struct.pack("<Q", 2**40))), "a header of more than 128,000,000 bytes"),
        (header(option("a", 9, struct.pack("<IQ", 9, 1))), "a list of values of type 9"),
        (header(option("a", 99, b"")), "a value of type 99"),
        (header(option("a", 4, b"\1")), "its header is not all there"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "GGUF version 9"),
    ],
)  # fmt: skip
def test_a_header_of_any_size_is_refused_before_the_package_reads_it(
    content: bytes, message: str, tmp_path: Path
) -> None:
    """The package makes an object of some hundred bytes of every item of a list."""
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(LockdecError, match=rf"a\.gguf: .*{message}"):
        check_files(path)


def test_sizes_are_known_before_any_weight_is_read(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", CHECKPOINTS["llama"]())
    config = CHECKPOINTS["llama"]().config
    assert promised(path) == {"max_len": config.max_position_embeddings, "layers": config.num_hidden_layers}


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    theirs = CHECKPOINTS["llama"]()
    theirs.model.norm.weight.data[3] = torch.nan
    path = write_gguf(tmp_path / "tiny.gguf", theirs)
    with pytest.raises(LockdecError, match=r"tiny\.gguf: output_norm\.weight holds NaN or infinity"):
        LockingDecoderModel.from_huggingface(path)


def test_code_beside_a_gguf_file_is_neither_run_nor_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of what lies beside it, transformers reads the tokenizer's config, which may name a class in a file of Python."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    path = write_gguf(tmp_path / "tiny.gguf", CHECKPOINTS["llama"]())
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Planted: pass\n")
    for name, kind in (("tokenizer_config.json", "AutoTokenizer"), ("config.json", "AutoConfig")):
        named = ["planted.Planted"] * 2 if kind == "AutoTokenizer" else "planted.Planted"
        (tmp_path / name).write_text(json.dumps({"auto_map": {kind: named}}))
        for read in (check_files, Tokenizer.from_huggingface):
            with suppress(LockdecError):  # whether it can be read without that code does not matter
                read(path)
    assert not (tmp_path / "ran").exists()
    assert "custom code" not in "".join(capsys.readouterr())
