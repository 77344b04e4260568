"""Every kind of encoder at its smallest, with inputs that it reads: what the contract is tested on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lockdec.data.captions import CaptionSet, Input, Modality
from lockdec.data.openmoji import OpenMoji
from lockdec.data.tokenizer import train_tokenizer
from lockdec.encoders.autoencoder import AutoencoderEncoder, from_bytes
from lockdec.encoders.configuration import VAEConfig, VQVAEConfig
from lockdec.encoders.contract import Encoder
from lockdec.encoders.efficientnet import EfficientNetLite0
from lockdec.encoders.features import Features
from lockdec.encoders.huggingface import HuggingFace
from lockdec.encoders.minilm import MiniLM
from lockdec.encoders.mlm import MaskedLanguageModelEncoder
from lockdec.encoders.pictures import pixels
from lockdec.encoders.sound import LogMel
from lockdec.encoders.together import Together
from lockdec.encoders.vae import VAE
from lockdec.encoders.vqvae import VQVAE
from lockdec.encoders.whisper import WhisperTiny
from lockdec.transformer.models import EncoderConfig, MaskedLanguageModel
from tests.encoders import checkpoints
from tests.encoders.array_encoder import Scaled

TEXTS = ["ein mann", "eine frau mit rotem haar", "ab", "katze", "zwei hunde", "a", "ein langer satz mit wörtern", "b c"]


@dataclass(frozen=True)
class Kind:
    """One kind of encoder.

    Attributes:
        encoder: of this kind.
        inputs: eight that it reads, of unlike lengths where it reads such.
        others: encoders of this kind of which each has another preprocessing, another choice or other weights.
    """

    encoder: Encoder
    inputs: list[Input]
    others: list[Encoder]


class Given(CaptionSet):
    """These inputs, half of them to train on."""

    def __init__(self, inputs: Sequence[Input], modality: Modality) -> None:
        self.given = list(inputs)
        count = len(inputs)
        super().__init__(
            ids=[f"input {row}" for row in range(count)],
            captions=[["caption"]] * count,
            splits={"train": range(count // 2), "val": range(count // 2, count - 1), "test": [count - 1]},
            modality=modality,
            inputs_fingerprint="given",
        )

    def inputs(self, indices: Sequence[int]) -> list[Input]:
        return [self.given[row] for row in indices]


def drawings() -> list[Input]:
    return OpenMoji("random", limit=32, resolution=40).inputs(range(0, 32, 4))


def audio() -> list[Input]:
    rng = np.random.default_rng(0)
    return [(rng.normal(size=400 + 90 * index) * 0.1).astype(np.float32) for index in range(8)]


def autoencoder(model: type[VAE] | type[VQVAE], seed: int = 0, position: bool = True, **sizes: Any) -> Encoder:
    torch.manual_seed(seed)
    common: dict[str, Any] = {"resolution": 32, "widths": [8, 12], "blocks": 1, "channels": 6} | sizes
    if model is VAE:
        return AutoencoderEncoder(VAE(VAEConfig(**{"vector": False} | common)), position)
    quantised = VQVAE(VQVAEConfig(codes=16, **common))
    latents = quantised.continuous(from_bytes(pixels(drawings(), common["resolution"], "VQVAE"))).detach()
    quantised.codebook.follow(latents, quantised.codebook.nearest(latents))  # codes where the latents are
    return AutoencoderEncoder(quantised, position)


def mlm(layers: Sequence[int] = (0, 2), vocab_size: int = 300) -> Encoder:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXTS, vocab_size)
    sizes = EncoderConfig(
        vocab_size=tokenizer.vocab_size + 1, max_len=16, d_model=16, layers=2, heads=2, d_ff=32, norm="pre",
        position="learned", dropout=0.1,
    )  # fmt: skip
    return MaskedLanguageModelEncoder(MaskedLanguageModel(sizes), tokenizer, layers)


def features(folder: Path, scale: float = 1.0) -> Encoder:
    folder.mkdir()
    lengths = np.arange(1, 9)
    np.save(folder / "states.npy", np.random.default_rng(0).normal(size=(lengths.sum(), 5)) * scale)
    np.save(folder / "lengths.npy", lengths)
    (folder / "ids.txt").write_text("".join(f"input {row}\n" for row in range(8)), encoding="utf-8")
    return Features(str(folder))


def of_autoencoder(model: type[VAE] | type[VQVAE]) -> Kind:
    others = [autoencoder(model, seed=1), autoencoder(model, position=False), autoencoder(model, resolution=40)]
    return Kind(autoencoder(model), drawings(), others)


def of_huggingface(save: Callable[[Path], Path], inputs: list[Input], folder: Path) -> Kind:
    path = str(save(folder / "checkpoint"))
    others: list[Encoder] = [HuggingFace(path, "pooled"), HuggingFace(path, layers=[0, -1])]
    return Kind(HuggingFace(path), inputs, others)


def ragged() -> list[Input]:
    return [np.asarray(samples)[: 6 * (index + 1)].reshape(-1, 3) for index, samples in enumerate(audio())]


def of_efficientnet(**options: Any) -> Kind:
    others: list[Encoder] = [EfficientNetLite0(96, **options), EfficientNetLite0(64, position=True, **options)]
    others += [EfficientNetLite0(64, untrained="untrained" not in options)]
    return Kind(EfficientNetLite0(64, **options), drawings(), others)


def together() -> Kind:
    """A picture and a text at once, and two views of a picture."""
    pairs: list[Input] = []
    for drawing, text in zip(drawings(), TEXTS, strict=True):
        assert isinstance(drawing, Image.Image)
        pairs.append({"image": drawing, "text": text})
    views = Together({"vae": autoencoder(VAE), "vqvae": autoencoder(VQVAE)})
    swapped = Together({"name": autoencoder(VAE), "drawing": mlm()})
    others: list[Encoder] = [Together({"drawing": autoencoder(VAE, seed=1), "name": mlm()}), views, swapped]
    return Kind(Together({"drawing": autoencoder(VAE), "name": mlm()}), pairs, others)


KINDS: dict[str, Callable[[Path], Kind]] = {
    "efficientnet_lite0": lambda folder: of_efficientnet(),
    "random_efficientnet_lite0": lambda folder: of_efficientnet(untrained=True),
    "mlm": lambda folder: Kind(mlm(), list(TEXTS), [mlm([0]), mlm(vocab_size=290)]),
    "vae": lambda folder: of_autoencoder(VAE),
    "vae_vector": lambda folder: Kind(
        autoencoder(VAE, vector=True, position=False), drawings(), [autoencoder(VAE), autoencoder(VAE, vector=True)]
    ),
    "vqvae": lambda folder: of_autoencoder(VQVAE),
    "minilm": lambda folder: Kind(MiniLM(), list(TEXTS), [MiniLM("pooled"), MiniLM(layers=[3])]),
    "huggingface, ViT": lambda folder: of_huggingface(checkpoints.vit, drawings(), folder),
    "huggingface, DINOv2": lambda folder: of_huggingface(checkpoints.dinov2, drawings(), folder),
    "huggingface, CLIP": lambda folder: of_huggingface(checkpoints.clip, drawings(), folder),
    "huggingface, SigLIP": lambda folder: of_huggingface(checkpoints.siglip, drawings(), folder),
    "huggingface, BERT": lambda folder: of_huggingface(checkpoints.bert, list(TEXTS), folder),
    "huggingface, wav2vec 2.0": lambda folder: of_huggingface(checkpoints.wav2vec2, audio(), folder),
    "huggingface, Whisper": lambda folder: of_huggingface(checkpoints.whisper, audio(), folder),
    "huggingface, CLAP": lambda folder: of_huggingface(checkpoints.clap, audio(), folder),
    "whisper_tiny": lambda folder: Kind(
        WhisperTiny(1, 2), audio(), [WhisperTiny(2, 2), WhisperTiny(1, 1), WhisperTiny(1, 2, untrained=True)]
    ),
    "logmel": lambda folder: Kind(LogMel(1, 2), audio(), [LogMel(2, 2), LogMel(1, 1), LogMel(1, 2, position=False)]),
    "features": lambda folder: Kind(
        features(folder / "a"), [f"input {row}" for row in (3, 1, 7, 0, 2, 4, 6, 5)], [features(folder / "b", 2.0)]
    ),
    "features, arrays": lambda folder: Kind(Features(dim=3), ragged(), [Features(dim=4)]),
    "several at once": lambda folder: together(),
    "a user's class": lambda folder: Kind(Scaled(3), ragged(), [Scaled(3, weight=2.0), Scaled(3, offset=1.0)]),
}
