"""Unlock the cross-attention: create its few weights, and show that nothing has changed yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import lightning as L
import torch

from lockdec.console import console
from lockdec.data.captions import CaptionSet
from lockdec.encoders.encoded import EncodedSet
from lockdec.evaluation.stored import load_decoder, load_tokenizer, save_cross_attention
from lockdec.runtime.devices import place_on
from lockdec.stages.attach import Attach
from lockdec.stages.stage import DecoderStage, Stage, Work
from lockdec.transformer.fast import chunks
from lockdec.transformer.models import CrossAttentionConfig

PROBES = 32  # training pairs on which logits are compared before and after unlocking


@dataclass(frozen=True, kw_only=True)
class Unlock(Stage):
    """Draws the initial cross-attention; its weights are the artifact."""

    name: ClassVar[str] = "unlock"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[type[Stage], ...]] = (DecoderStage, Attach)
    code: ClassVar[tuple[str, ...]] = ("lockdec.evaluation.stored", "lockdec.transformer.attention")
    data: CaptionSet
    cross_attention: CrossAttentionConfig
    seed: int

    def check_after(self, before: Mapping[str, Stage]) -> None:
        """Refuse layers that the decoder does not have."""
        decoder = before[DecoderStage.name]
        if isinstance(decoder, DecoderStage) and "layers" in decoder.sizes:
            self.cross_attention.layer_numbers(decoder.sizes["layers"])

    def make(self, work: Work) -> dict[str, Any]:
        encoded = EncodedSet.open(work.parent(Attach).folder)
        if encoded.max_states == 1:
            console.print(
                "  unlock: every input has a single state, so attention has no choice: d_q and d_k cannot matter"
            )
        tokenizer = load_tokenizer(*work.decoder)
        model = load_decoder(*work.decoder, device=work.device)
        L.seed_everything(self.seed, verbose=False)
        model.attach(self.cross_attention, encoder_dim=encoded.dim)
        save_cross_attention(model, work.folder)

        rows = self.data.splits["train"][:PROBES]
        captions = [self.data.captions[row][0] for row in rows]
        device = place_on(model, work.device)  # after the weights are drawn: on every device they are the CPU's
        tokens = tokenizer.batch(captions, max_len=model.config.max_len)[:, :-1].to(device)
        with torch.inference_mode():
            locked = model.hidden(tokens).flatten(0, 1)
            model.unlock()
            unlocked = model.hidden(tokens, encoded.batch(rows).to(device)).flatten(0, 1)
            deltas = [
                (model.logits(unlocked[part]) - model.logits(locked[part])).abs().max()
                for part in chunks(len(locked), model.config.vocab_size)
            ]
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
            "unlock": {"max_abs_logit_delta": float(max(deltas))},
        }
