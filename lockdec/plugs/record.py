"""What plug.json holds: which decoder and encoder a plug was made for, and how it was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lockdec.data.tokenizer import Prompt

SCHEMA = 3
READABLE = (1, 2, SCHEMA)  # 1 has no bridge, 1 and 2 no precision of the decoder
RECORD, CARD, ENCODER = "plug.json", "README.md", "encoder"
GIVEN = "given:"  # prefix of a path in the encoder's config that the user has to give


@dataclass(frozen=True)
class DecoderRecord:
    """Which decoder a plug was made for.

    Attributes:
        fingerprint, tokenizer: identify its weights and its tokenizer.
        sizes: its `DecoderConfig`.
        source: where it came from, if it was imported.
        dtype: the precision of its weights, in which they are fingerprinted and over which the plug was trained; None
            in schemas 1 and 2, where it is that of the decoder at hand.
    """

    fingerprint: str
    tokenizer: str
    sizes: dict[str, Any]
    source: str | None
    dtype: str | None = None

    @property
    def hosted(self) -> bool:
        """Whether it is kept as transformers has it."""
        return "architecture" in self.sizes


@dataclass(frozen=True)
class EncoderRecord:
    """Which encoder a plug was made for.

    Attributes:
        name: of its class.
        modality: of its inputs.
        config: by which it is built.
        fingerprint: identifies its weights and settings.
        dim: channels of a state.
    """

    name: str
    modality: str
    config: dict[str, Any]
    fingerprint: str
    dim: int


@dataclass(frozen=True)
class FileRecord:
    """A file of the folder."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class PlugRecord:
    """What plug.json holds.

    Attributes:
        schema: of this file.
        lockdec: the version that wrote it.
        name: of the run.
        cross_attention: its `CrossAttentionConfig` and its `encoder_dim`; None where another bridge works without.
        prompt: what stood before every caption in training.
        decoding: the config by which captions were generated.
        training: data, shots, seeds and settings of finetuning.
        metrics, controls: of the run, beside each other.
        licences: of the data and of the weights, where they are known.
        files: of the folder, except this one and the card.
        bridge: what carries the states beside or in the place of cross-attention: its kind, settings and `encoder_dim`;
            None for cross-attention alone.
    """

    schema: int
    lockdec: str
    name: str
    decoder: DecoderRecord
    encoder: EncoderRecord
    cross_attention: dict[str, Any] | None
    prompt: Prompt | None
    decoding: dict[str, Any]
    training: dict[str, Any]
    metrics: dict[str, float]
    controls: dict[str, dict[str, float]]
    licences: dict[str, str]
    files: dict[str, FileRecord]
    bridge: dict[str, Any] | None = None
