"""Tiny checkpoints with random weights, saved as `transformers` saves them; no network is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
PATCHES: dict[str, Any] = {"image_size": 32, "patch_size": 8}
SIDES = {"height": 32, "width": 32}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrst")]


def _seeded(model: type, config: Any) -> Any:
    torch.manual_seed(3)
    return model(config)


def _audio(extractor: Any, **options: Any) -> Any:
    return extractor(**options)


def vit(folder: Path) -> Path:
    """An image network: 17 states."""
    return _save(folder, _seeded(hf.ViTModel, hf.ViTConfig(**SIZES, **PATCHES)), hf.ViTImageProcessorPil(size=SIDES))


def dinov2(folder: Path) -> Path:
    """An image network whose classes have other names."""
    sizes = {name: value for name, value in SIZES.items() if name != "intermediate_size"}
    model = _seeded(hf.Dinov2Model, hf.Dinov2Config(**sizes, **PATCHES))
    return _save(folder, model, hf.ViTImageProcessorPil(size=SIDES))


def clip(folder: Path) -> Path:
    """Two towers, of images and of texts."""
    config = hf.CLIPConfig(
        text_config={**SIZES, "vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": 3},
        vision_config={**SIZES, **PATCHES},
        projection_dim=8,
    )
    processor = hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=SIDES)
    words(folder)
    return _save(folder, _seeded(hf.CLIPModel, config), processor)


def siglip(folder: Path) -> Path:
    """Two towers; its pooled vector comes from attention."""
    config = hf.SiglipConfig(
        text_config={**SIZES, "vocab_size": len(WORDS)},
        vision_config={**SIZES, **PATCHES},
    )
    return _save(folder, _seeded(hf.SiglipModel, config), hf.SiglipImageProcessorPil(size=SIDES))


def bert(folder: Path) -> Path:
    """A text network that allows 16 tokens."""
    config = hf.BertConfig(**SIZES, vocab_size=len(WORDS), max_position_embeddings=16)
    words(folder)
    _seeded(hf.BertModel, config).save_pretrained(folder)
    return folder


def wav2vec2(folder: Path) -> Path:
    """An audio network of samples: a state for each 20 of them."""
    config = hf.Wav2Vec2Config(
        **SIZES,
        conv_dim=(8, 8),
        conv_stride=(5, 4),
        conv_kernel=(10, 4),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    return _save(folder, _seeded(hf.Wav2Vec2Model, config), _audio(hf.Wav2Vec2FeatureExtractor))


def whisper(folder: Path) -> Path:
    """An audio network of spectra: 100 states, whatever the length, of which some are silence that was added."""
    config = hf.WhisperConfig(
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        vocab_size=99,
        num_mel_bins=8,
        max_source_positions=100,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    processor = _audio(hf.WhisperFeatureExtractor, feature_size=8, chunk_length=2)
    return _save(folder, _seeded(hf.WhisperModel, config), processor)


def clap(folder: Path, fused: bool = False) -> Path:
    """A tower of texts, and one of audio of at most a second; `fused`: of the kind that takes four spectra at once."""
    text = {**SIZES, "vocab_size": len(WORDS)}
    audio = {
        "spec_size": 32, "num_mel_bins": 16, "window_size": 2, "patch_size": 4, "patch_stride": [4, 4],
        "patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2],
        "enable_fusion": fused,
    }  # fmt: skip
    truncation = "fusion" if fused else "rand_trunc"
    config = hf.ClapConfig(text_config=text, audio_config=audio, projection_dim=8)
    words(folder)
    processor = _audio(hf.ClapFeatureExtractor, feature_size=16, hop_length=800, max_length_s=1, truncation=truncation)
    return _save(folder, _seeded(hf.ClapModel, config), processor)


def words(folder: Path) -> None:
    """A tokenizer of letters."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    hf.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)


def _save(folder: Path, model: Any, processor: Any) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
