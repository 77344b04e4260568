"""Unlock the cross-attention: create its few weights, and show that nothing has changed yet."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch

from lockdec.console import console
from lockdec.data.captions import CaptionSet
from lockdec.encoders.encoded import EncodedSet
from lockdec.errors import StoreError
from lockdec.stages.pretrain import load_decoder, load_tokenizer
from lockdec.stages.stage import Stage, Work
from lockdec.store import Artifact
from lockdec.store.reading import as_dataclass, read_object
from lockdec.store.tensors import load_tensors, save_tensors
from lockdec.store.writing import write_json
from lockdec.transformer.models import CrossAttentionConfig, LockingDecoderModel

CONFIG, WEIGHTS = "cross_attention.json", "cross_attention.safetensors"
PROBES = 32  # training pairs on which logits are compared before and after unlocking


@dataclass(frozen=True, kw_only=True)
class Unlock(Stage):
    """Draws the initial cross-attention; its weights are the artifact."""

    version: ClassVar[int] = 1
    data: CaptionSet
    cross_attention: CrossAttentionConfig
    seed: int

    def make(self, work: Work) -> dict[str, Any]:
        encoded = EncodedSet.open(work.parents["attach"].folder)
        if encoded.max_states == 1:
            console.print(
                "  unlock: every input has a single state, so attention has no choice: d_q and d_k cannot matter"
            )
        tokenizer = load_tokenizer(work.parents["pretrain"])
        model = load_decoder(work.parents["pretrain"])
        L.seed_everything(self.seed, verbose=False)
        model.attach(self.cross_attention, encoder_dim=encoded.dim)
        save_cross_attention(model, work.folder)

        rows = self.data.splits["train"][:PROBES]
        tokens = tokenizer.batch([self.data.captions[row][0] for row in rows], max_len=model.config.max_len)
        with torch.inference_mode():
            locked = model(tokens[:, :-1])
            model.unlock()
            delta = (model(tokens[:, :-1], encoded.batch(rows)) - locked).abs().max()
        config = asdict(self.cross_attention)
        trainable = sum(weight.numel() for weight in model.cross_attention_parameters().values())
        return {
            "cross_attention": {**config, "parameters": trainable},
            "parameters": {
                "total": sum(weight.numel() for weight in model.parameters()),
                "trainable": trainable,
                "per_module": {
                    "decoder": sum(weight.numel() for weight in model.parameters()) - trainable,
                    "cross_attention": trainable,
                },
            },
            "unlock": {"max_abs_logit_delta": float(delta)},
        }


def save_cross_attention(model: LockingDecoderModel, folder: Path) -> None:
    """Write the cross-attention's weights and what it takes to build it again."""
    save_tensors(model.cross_attention_parameters(), folder / WEIGHTS)
    assert model.cross_attention_config is not None  # attached
    config = {"encoder_dim": model.encoder_dim, **asdict(model.cross_attention_config)}
    write_json(folder / CONFIG, config)


def load_captioner(pretrain: Artifact, cross_attention: Artifact) -> LockingDecoderModel:
    """The decoder with the cross-attention of an unlock or a finetune artifact: unlocked, in evaluation mode."""
    model = load_decoder(pretrain)
    config, weights = cross_attention.path(CONFIG), cross_attention.path(WEIGHTS)
    sizes = read_object(config)
    encoder_dim = sizes.pop("encoder_dim", None)
    if not isinstance(encoder_dim, int):
        raise StoreError(f"{config}: encoder_dim={encoder_dim} is not a number of channels")
    model.attach(as_dataclass(config, CrossAttentionConfig, sizes), encoder_dim)
    saved, own = load_tensors(weights), model.cross_attention_parameters()
    if {name: tensor.shape for name, tensor in saved.items()} != {name: tensor.shape for name, tensor in own.items()}:
        raise StoreError(f"{weights}: not the weights of the cross-attention in {config.name}")
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(saved[name])
    model.unlock()
    return model.eval()
