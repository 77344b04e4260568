"""Pretrain a text encoder by masked language modelling, on the inputs of the training split and on other texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from omegaconf import MISSING

from lockdec.config.schema import require_vocabulary
from lockdec.data.captions import CaptionSet, Split
from lockdec.data.text import TextSource, kept_apart, lines_of, with_sources
from lockdec.data.tokenizer import Tokenizer, train_tokenizer
from lockdec.encoders.mlm import save_masked_language_model
from lockdec.errors import ConfigError
from lockdec.runtime.memory import require_memory
from lockdec.stages.stage import Stage, Work
from lockdec.stages.training_stage import EncoderStage, TrainingConfig
from lockdec.transformer.models import EncoderConfig, MaskedLanguageModel


@dataclass
class PretrainEncoderConfig(TrainingConfig):
    """How a text encoder learns to read, by masked language modelling (Devlin et al. 2019, 3.1).

    Attributes:
        seed: moves the initial weights, the order of the texts and what is masked.
        vocab_size: of its tokenizer, the special tokens and the 256 bytes included.
        model: the encoder's sizes, except `vocab_size`, which is the tokenizer's.
        batch_tokens: how many tokens (padding included) a batch holds at most.
        masked: share of the tokens to be predicted; of these 80 % are masked, 10 % replaced and 10 % left.
        whole_words: whether all tokens of a word are predicted together; words end at spaces, so a text without any,
            as in Chinese, is predicted as a whole.
    """

    seed: int = MISSING
    vocab_size: int = MISSING
    model: EncoderConfig = field(default_factory=EncoderConfig)
    batch_tokens: int = MISSING
    masked: float = MISSING
    whole_words: bool = False

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        self.check_training("pretrain_encoder", batch_tokens=1)
        require_vocabulary("pretrain_encoder", self)
        if not 0 < self.masked < 1:
            raise ConfigError(f"pretrain_encoder.masked={self.masked} must be above 0 and below 1")
        self.model.check()


@dataclass(frozen=True, kw_only=True)
class PretrainEncoder(EncoderStage):
    """Trains a tokenizer and a masked language model; `lockdec.encoders.mlm` opens them.

    It reads no captions, no test inputs, and validation inputs only to measure the loss.

    Attributes:
        sources: more texts to read; a line that equals a val or test input is dropped (`kept_apart`).
        untrained: keep the initial weights: a control that shows what training contributes.
    """

    name: ClassVar[str] = "pretrain_encoder"
    version: ClassVar[int] = 2
    section = PretrainEncoderConfig
    neutral: ClassVar[tuple[str, ...]] = (*EncoderStage.neutral, "fit.whole_words=False")  # older than this option
    code: ClassVar[tuple[str, ...]] = (
        *EncoderStage.code,
        "lockdec.data.text",
        "lockdec.data.tokenizer",
        "lockdec.encoders.mlm",
        "lockdec.modules.masked_language_modeling",
    )
    fit: PretrainEncoderConfig
    data: CaptionSet
    sources: dict[str, TextSource] = field(default_factory=dict)
    untrained: bool = False

    @property
    def sizes(self) -> EncoderConfig:
        return self.fit.model

    def check(self) -> None:
        if self.data.modality != "text":
            raise ConfigError(f"encoder: masked language modelling reads text inputs, "
                              f"but data: {type(self.data).__name__} has {self.data.modality} inputs")  # fmt: skip
        if self.fit.batch_tokens < self.fit.model.max_len:
            raise ConfigError(f"pretrain_encoder.batch_tokens={self.fit.batch_tokens}: at least "
                              f"pretrain_encoder.model.max_len={self.fit.model.max_len}")  # fmt: skip

    def rehearse(self, device: torch.device, before: Mapping[str, Stage], keys: Mapping[str, str]) -> None:
        require_memory(f"pretrain_encoder.model: {self.fit.model.described}", self.fit.model.least_parameters)

    def fingerprints(self) -> dict[str, str]:
        return with_sources({"data": self.data.fingerprint}, self.sources)

    def make(self, work: Work) -> dict[str, Any]:
        import lightning as L

        texts = [*self._texts("train"), *self._more_texts()]
        tokenizer = train_tokenizer(texts, self.fit.vocab_size, self.data.case)
        L.seed_everything(self.fit.seed, verbose=False)
        model = MaskedLanguageModel(replace(self.fit.model, vocab_size=tokenizer.vocab_size + 1))  # and the mask
        metrics = {} if self.untrained else self._fit(model, tokenizer, texts, work)
        save_masked_language_model(model, tokenizer, work.folder)
        return {"pretrain_encoder": metrics}

    def _fit(self, model: MaskedLanguageModel, tokenizer: Tokenizer, texts: list[str], work: Work) -> dict[str, float]:
        from lockdec.modules.masked_language_modeling import MaskedLanguageModeling
        from lockdec.training.batching import TextDataModule

        batches = TextDataModule(
            tokenizer,
            texts,
            val=self._texts("val"),
            batch_tokens=self.fit.batch_tokens,
            max_len=self.fit.model.max_len,
            steps=self.fit.steps,
            seed=self.fit.seed,
        )
        fit, begins_word = self.fit, tokenizer.begins_word if self.fit.whole_words else None
        module = MaskedLanguageModeling(model, fit.optimizer, fit.steps, work.stage, fit.masked, begins_word)
        return self.train(module, batches, work, self.fit.seed)

    def _texts(self, split: Split) -> list[str]:
        return [str(text) for text in self.data.inputs(self.data.splits[split])]

    def _more_texts(self) -> list[str]:
        return kept_apart(lines_of(self.sources.values(), self.data.case), [*self._texts("val"), *self._texts("test")])
