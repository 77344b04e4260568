"""A text encoder pretrained here by masked language modelling: each token of a text becomes a state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from lockdec.data.captions import Input, Modality
from lockdec.data.tokenizer import PAD_ID, Tokenizer
from lockdec.encoders.contract import Encoder, PretrainedHere
from lockdec.errors import ConfigError, DataError
from lockdec.store.reading import read_dataclass
from lockdec.store.tensors import load_module, save_tensors
from lockdec.store.writing import write_json
from lockdec.transformer.encoded import Encoded
from lockdec.transformer.models import EncoderConfig, MaskedLanguageModel

TOKENIZER, CONFIG, WEIGHTS = "tokenizer.json", "encoder.json", "encoder.safetensors"


class MaskedLanguageModelEncoder(Encoder):
    """States of a transformer encoder, one per token, BOS and EOS included.

    Args:
        model: a pretrained model.
        tokenizer: the one that it was pretrained with.
        layers: the layers whose outputs to concatenate along the channels: 0 is the token embeddings, n the n-th layer.

    Raises:
        ConfigError: there is no such layer.
    """

    modality: Modality = "text"

    def __init__(self, model: MaskedLanguageModel, tokenizer: Tokenizer, layers: Sequence[int]) -> None:
        super().__init__()
        config = model.encoder.config
        self.groups = _groups(layers, config)
        self.model, self.tokenizer, self.layers, self.max_len = model.encoder, tokenizer, tuple(layers), config.max_len
        self.dim = sum(self.groups)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"layers": self.layers, "sizes": asdict(self.model.config), "tokenizer": self.tokenizer.fingerprint}

    def preprocess(self, inputs: Sequence[Input]) -> Int[Tensor, "b t"]:
        """Tokens: BOS, text, EOS, padding.

        Raises:
            DataError: an input is not a text.
        """
        texts = [text for text in inputs if isinstance(text, str)]
        if len(texts) < len(inputs):
            raise DataError("MaskedLanguageModelEncoder reads texts")
        return self.tokenizer.batch(texts, self.max_len)

    def reads_whole(self, given: Input) -> bool:
        return len(self.tokenizer.sequences([str(given)], self.max_len + 1)[0]) <= self.max_len

    def labels(self, given: Input) -> list[str]:
        """The tokens of a text."""
        ids = self.tokenizer.sequences([str(given)], self.max_len)[0]
        ends = {self.tokenizer.special.bos: "begin", self.tokenizer.special.eos: "end"}
        return [ends.get(token) or self.tokenizer.decode([token]) for token in ids]

    def forward(self, batch: Int[Tensor, "b t"]) -> Encoded:
        """The concatenated outputs of the layers; padding is masked."""
        stack, mask = self.model.encoder, batch != PAD_ID
        outputs = [self.model.embedding(batch)]
        for layer in stack.layers:
            outputs.append(layer(outputs[-1], mask))
        outputs[-1] = stack.norm(outputs[-1])
        return Encoded(torch.cat([outputs[layer] for layer in self.layers], dim=-1), mask)


@dataclass(frozen=True)
class PretrainedMaskedLanguageModel(PretrainedHere):
    """The encoder that the stage `pretrain_encoder` makes.

    Attributes:
        layers: see `MaskedLanguageModelEncoder`.
    """

    modality: ClassVar[Modality] = "text"
    layers: list[int]
    stage: str = "pretrain_encoder"

    def open(self, folder: Path) -> Encoder:
        config = read_dataclass(folder / CONFIG, EncoderConfig)
        model = load_module(lambda: MaskedLanguageModel(config), folder / WEIGHTS)
        return MaskedLanguageModelEncoder(model, Tokenizer.load(folder / TOKENIZER), self.layers)

    def groups_for(self, sizes: EncoderConfig) -> tuple[int, ...]:
        return _groups(self.layers, sizes)


def _groups(layers: Sequence[int], sizes: EncoderConfig) -> tuple[int, ...]:
    """The channels of each of these layers; ConfigError if there is no such layer."""
    if not layers or len(set(layers)) < len(layers) or not set(layers) <= set(range(sizes.layers + 1)):
        raise ConfigError(
            f"encoder.layers={list(layers)}: one or more of 0 (the embeddings) to {sizes.layers}, each once"
        )
    return (sizes.d_model,) * len(layers)


def save_masked_language_model(model: MaskedLanguageModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write what `PretrainedMaskedLanguageModel.open` reads."""
    tokenizer.save(folder / TOKENIZER)
    write_json(folder / CONFIG, asdict(model.encoder.config))
    save_tensors(model.state_dict(), folder / WEIGHTS)
