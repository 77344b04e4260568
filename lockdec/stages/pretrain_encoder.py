"""Pretrain a text encoder by masked language modelling, on the inputs of the training split alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import lightning as L

from lockdec.config.schema import TrainerConfig
from lockdec.data.captions import CaptionSet, Split
from lockdec.data.tokenizer import Tokenizer, train_tokenizer
from lockdec.encoders.mlm import save_masked_language_model
from lockdec.errors import ConfigError
from lockdec.modules.configuration import PretrainEncoderConfig
from lockdec.modules.masked_language_modeling import MaskedLanguageModeling
from lockdec.stages.stage import Stage, Work
from lockdec.training.batching import TextDataModule
from lockdec.training.fit import fit
from lockdec.transformer.models import MaskedLanguageModel


@dataclass(frozen=True, kw_only=True)
class PretrainEncoder(Stage):
    """Trains a tokenizer and a masked language model; `lockdec.encoders.mlm` opens them.

    Captions are not read, nor any input of the validation and test splits but to measure the validation loss.

    Attributes:
        untrained: leave the first weights as they are: the control that says what training was worth.
    """

    version: ClassVar[int] = 2
    data: CaptionSet
    fit: PretrainEncoderConfig
    trainer: TrainerConfig
    callbacks: dict[str, L.Callback]
    untrained: bool = False

    def check(self) -> None:
        if self.data.modality != "text":
            raise ConfigError(f"encoder: masked language modelling reads text inputs, "
                              f"but data: {type(self.data).__name__} has {self.data.modality} inputs")  # fmt: skip
        if self.fit.batch_tokens < self.fit.model.max_len:
            raise ConfigError(f"pretrain_encoder.batch_tokens={self.fit.batch_tokens}: at least "
                              f"pretrain_encoder.model.max_len={self.fit.model.max_len}")  # fmt: skip

    def fingerprints(self) -> dict[str, str]:
        return {"data": self.data.fingerprint}

    def make(self, work: Work) -> dict[str, Any]:
        texts = self._texts("train")
        tokenizer = train_tokenizer(texts, self.fit.vocab_size)
        L.seed_everything(self.fit.seed, verbose=False)
        model = MaskedLanguageModel(replace(self.fit.model, vocab_size=tokenizer.vocab_size + 1))  # and the mask
        metrics = {} if self.untrained else self._fit(model, tokenizer, texts, work)
        save_masked_language_model(model, tokenizer, work.folder)
        return {"pretrain_encoder": metrics}

    def _fit(self, model: MaskedLanguageModel, tokenizer: Tokenizer, texts: list[str], work: Work) -> dict[str, float]:
        logged = fit(
            MaskedLanguageModeling(model, self.fit, stage=work.stage),
            TextDataModule(
                tokenizer,
                texts,
                val=self._texts("val"),
                batch_tokens=self.fit.batch_tokens,
                max_len=self.fit.model.max_len,
                steps=self.fit.steps,
                seed=self.fit.seed,
            ),
            stage=work.stage,
            folder=work.folder,
            loggers=work.loggers,
            steps=self.fit.steps,
            seed=self.fit.seed,
            clip_norm=self.fit.optimizer.clip_norm,
            trainer=self.trainer,
            callbacks=self.callbacks.values(),
        )
        return {name.removeprefix(f"{work.stage}/"): value for name, value in logged.items()}

    def _texts(self, split: Split) -> list[str]:
        return [str(text) for text in self.data.inputs(self.data.splits[split])]
