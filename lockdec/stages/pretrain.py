"""Pretrain the decoder on text, with its cross-attention locked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import lightning as L

from lockdec.config import PretrainConfig, TokenizerConfig, TrainerConfig
from lockdec.data.batching import TextDataModule
from lockdec.data.captions import CaptionSet
from lockdec.data.text import TextSource, pretraining_text
from lockdec.data.tokenizer import Tokenizer, train_tokenizer
from lockdec.modules.language_modeling import LanguageModeling
from lockdec.stages.stage import Stage, Work
from lockdec.store import Artifact
from lockdec.store.reading import read_dataclass
from lockdec.store.tensors import load_weights, save_tensors
from lockdec.store.writing import write_json
from lockdec.training import fit
from lockdec.transformer.models import DecoderConfig, LockingDecoderModel

TOKENIZER, CONFIG, WEIGHTS = "tokenizer.json", "decoder.json", "decoder.safetensors"


@dataclass(frozen=True, kw_only=True)
class Pretrain(Stage):
    """Trains the tokenizer and the decoder; their files are the artifact."""

    version: ClassVar[int] = 2
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


def save_decoder(model: LockingDecoderModel, folder: Path) -> None:
    """Write the weights of a decoder without cross-attention, and what it takes to build it again."""
    write_json(folder / CONFIG, asdict(model.config))
    save_tensors(model.state_dict(), folder / WEIGHTS)


def load_decoder(artifact: Artifact) -> LockingDecoderModel:
    """The pretrained decoder, locked, in evaluation mode."""
    model = LockingDecoderModel(read_dataclass(artifact.path(CONFIG), DecoderConfig))
    load_weights(model, artifact.path(WEIGHTS))
    return model.eval()


def load_tokenizer(artifact: Artifact) -> Tokenizer:
    """The tokenizer the decoder was pretrained with."""
    return Tokenizer.load(artifact.path(TOKENIZER))
