"""Finetune the cross-attention, and only it, on the pairs of the support set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import lightning as L

from lockdec.config.schema import FewshotConfig, FinetuneConfig, TrainerConfig
from lockdec.data.captions import CaptionSet
from lockdec.data.fewshot import support_set
from lockdec.encoders.encoded import EncodedSet
from lockdec.evaluation.looking import Looking
from lockdec.evaluation.stored import load_captioner, load_tokenizer, save_cross_attention
from lockdec.modules.captioning import Captioning
from lockdec.stages.stage import Stage, Work
from lockdec.training.batching import SupportDataModule
from lockdec.training.fit import fit
from lockdec.transformer.models import LockingDecoderModel

WATCHED = 64  # validation pairs that only loggers are told about


@dataclass(frozen=True, kw_only=True)
class Finetune(Stage):
    """Learns from the support set and nothing else of the data; the trained cross-attention is the artifact."""

    version: ClassVar[int] = 3
    together: ClassVar[bool] = True
    data: CaptionSet
    fewshot: FewshotConfig
    fit: FinetuneConfig
    trainer: TrainerConfig
    callbacks: dict[str, L.Callback]
    seed: int

    def check(self) -> None:
        support_set(self.data, self.fewshot.shots, self.fewshot.support_seed)

    def fingerprints(self) -> dict[str, str]:
        return {"data": self.data.fingerprint}

    def make(self, work: Work) -> dict[str, Any]:
        pairs = support_set(self.data, self.fewshot.shots, self.fewshot.support_seed)
        encoded = EncodedSet.open(work.parents["attach"].folder)
        tokenizer = load_tokenizer(work.parents["pretrain"])
        model = load_captioner(work.parents["pretrain"], work.parents["unlock"])
        batches = SupportDataModule(
            tokenizer,
            pairs,
            encoded,
            batch_size=self.fit.batch_size,
            max_len=model.config.max_len,
            steps=self.fit.steps,
            seed=self.seed,
        )

        seen = self.data.splits["val"][:WATCHED]
        captions = tokenizer.batch([self.data.captions[row][0] for row in seen], model.config.max_len) if seen else None
        watched = (
            [] if captions is None else [Looking(work.stage, captions, encoded.batch(seen), tokenizer.special.eos)]
        )
        frozen = decoder_fingerprint(model)
        logged = fit(
            Captioning(model, self.fit, tokenizer.special.eos, stage=work.stage),
            batches,
            stage=work.stage,
            folder=work.folder,
            loggers=work.loggers,
            steps=self.fit.steps,
            seed=self.seed,
            clip_norm=self.fit.optimizer.clip_norm,
            trainer=self.trainer,
            callbacks=[*self.callbacks.values(), *watched],
        )
        save_cross_attention(model, work.folder)
        return {
            "fewshot": {"shots": len(pairs), "support_seed": self.fewshot.support_seed},
            "finetune": {name.removeprefix(f"{work.stage}/"): value for name, value in logged.items()},
            "frozen": {"decoder_ok": decoder_fingerprint(model) == frozen},
        }


def decoder_fingerprint(model: LockingDecoderModel) -> str:
    """The sha256 of every tensor that is not cross-attention."""
    trained = model.cross_attention_parameters()
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name not in trained:
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
