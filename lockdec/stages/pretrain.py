"""Pretrain the decoder on text, with its cross-attention locked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import lightning as L

from lockdec.config.schema import PretrainConfig, TokenizerConfig, TrainerConfig
from lockdec.data.captions import CaptionSet
from lockdec.data.text import TextSource, pretraining_text
from lockdec.data.tokenizer import train_tokenizer
from lockdec.evaluation.stored import TOKENIZER, save_decoder
from lockdec.modules.language_modeling import LanguageModeling
from lockdec.stages.stage import Stage, Work
from lockdec.training.batching import TextDataModule
from lockdec.training.fit import fit
from lockdec.transformer.models import DecoderConfig, LockingDecoderModel


@dataclass(frozen=True, kw_only=True)
class Pretrain(Stage):
    """Trains the tokenizer and the decoder; their files are the artifact."""

    version: ClassVar[int] = 3
    together: ClassVar[bool] = True
    decoder: DecoderConfig
    tokenizer: TokenizerConfig
    data: CaptionSet
    sources: dict[str, TextSource]
    name_repeats: int
    fit: PretrainConfig
    trainer: TrainerConfig
    callbacks: dict[str, L.Callback]

    def fingerprints(self) -> dict[str, str]:
        return {"data": self.data.fingerprint} | {name: text.fingerprint for name, text in self.sources.items()}

    def make(self, work: Work) -> dict[str, Any]:
        text = pretraining_text(self.data, list(self.sources.values()), self.name_repeats)
        tokenizer = train_tokenizer(text, self.tokenizer.vocab_size)
        tokenizer.save(work.folder / TOKENIZER)

        L.seed_everything(self.fit.seed, verbose=False)
        model = LockingDecoderModel(self.decoder)
        module = LanguageModeling(model, self.fit.optimizer, self.fit.steps, stage=work.stage)
        batches = TextDataModule(
            tokenizer,
            text,
            val=self.data.references("val"),
            batch_tokens=self.fit.batch_tokens,
            max_len=self.decoder.max_len,
            steps=self.fit.steps,
            seed=self.fit.seed,
        )
        logged = fit(
            module,
            batches,
            stage=work.stage,
            folder=work.folder,
            loggers=work.loggers,
            steps=self.fit.steps,
            seed=self.fit.seed,
            clip_norm=self.fit.optimizer.clip_norm,
            trainer=self.trainer,
            callbacks=self.callbacks.values(),
        )
        save_decoder(model, work.folder)
        return {"pretrain": {name.removeprefix(f"{work.stage}/"): value for name, value in logged.items()}}
