"""Pretrain the decoder on text, with its cross-attention locked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from omegaconf import MISSING

from lockdec.config.schema import TokenizerConfig
from lockdec.data.captions import CaptionSet
from lockdec.data.text import TextSource, pretraining_text, with_sources
from lockdec.data.tokenizer import train_tokenizer
from lockdec.errors import ConfigError
from lockdec.evaluation.stored import TOKENIZER, save_decoder
from lockdec.runtime.memory import require_memory
from lockdec.stages.stage import DecoderStage, Stage, Work
from lockdec.stages.training_stage import TrainingConfig, TrainingStage
from lockdec.transformer.models import DecoderConfig, LockingDecoderModel, LockingModel


@dataclass
class PretrainConfig(TrainingConfig):
    """How the locked decoder learns to generate text.

    Attributes:
        seed: moves the initial weights and the order of the text, and nothing after pretraining.
        batch_tokens: how many tokens (padding included) a batch holds at most.
    """

    seed: int = MISSING
    batch_tokens: int = MISSING

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        self.check_training("pretrain", batch_tokens=1)


@dataclass(frozen=True, kw_only=True)
class Pretrain(TrainingStage, DecoderStage):
    """Trains the tokenizer and the decoder; their files are the artifact.

    All that it reads of the data is the text of the captions, so data sets with the same captions share one decoder,
    whatever their inputs are and however these are encoded.
    """

    version: ClassVar[int] = 4
    fingerprinted: ClassVar[tuple[str, ...]] = (*TrainingStage.fingerprinted, "data")  # its captions
    section = PretrainConfig
    code: ClassVar[tuple[str, ...]] = (
        *TrainingStage.code,
        "lockdec.data.text",
        "lockdec.data.tokenizer",
        "lockdec.modules.language_modeling",
        "lockdec.modules.losses",
    )
    together: ClassVar[bool] = True
    fit: PretrainConfig
    decoder: DecoderConfig
    tokenizer: TokenizerConfig
    data: CaptionSet
    sources: dict[str, TextSource]
    name_repeats: int

    def check(self) -> None:
        super().check()
        if self.name_repeats < 0:
            raise ConfigError(f"text.name_repeats={self.name_repeats} must be at least 0")
        if self.fit.batch_tokens < self.decoder.max_len:
            raise ConfigError(f"pretrain.batch_tokens={self.fit.batch_tokens}: at least "
                              f"decoder.max_len={self.decoder.max_len}")  # fmt: skip

    @property
    def sizes(self) -> dict[str, int]:
        return {"max_len": self.decoder.max_len, "layers": self.decoder.layers}

    def undrawn(self) -> LockingModel:
        return LockingDecoderModel.undrawn(self.decoder)

    def rehearse(self, device: torch.device, before: Mapping[str, Stage], keys: Mapping[str, str]) -> None:
        require_memory(self.decoder.described, self.decoder.least_parameters)

    def fingerprints(self) -> dict[str, str]:
        return with_sources({"captions": self.data.text_fingerprint}, self.sources)

    def make(self, work: Work) -> dict[str, Any]:
        import lightning as L

        from lockdec.modules.language_modeling import LanguageModeling
        from lockdec.training.batching import TextDataModule

        text = pretraining_text(self.data, list(self.sources.values()), self.name_repeats)
        tokenizer = train_tokenizer(text, self.tokenizer.vocab_size, self.data.case)
        tokenizer.save(work.folder / TOKENIZER)
        L.seed_everything(self.fit.seed, verbose=False)
        model = LockingDecoderModel(self.decoder)
        batches = TextDataModule(
            tokenizer,
            text,
            val=self.data.references("val"),
            batch_tokens=self.fit.batch_tokens,
            max_len=self.decoder.max_len,
            steps=self.fit.steps,
            seed=self.fit.seed,
        )
        module = LanguageModeling(model, self.fit.optimizer, self.fit.steps, work.stage)
        metrics = self.train(module, batches, work, self.fit.seed)
        save_decoder(model, work.folder)
        return {"pretrain": metrics}
