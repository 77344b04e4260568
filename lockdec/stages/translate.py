"""Train the book's transformer to translate the texts of the training split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from omegaconf import MISSING

from lockdec.config.schema import TokenizerConfig
from lockdec.data.fewshot import Pair, support_set
from lockdec.data.tokenizer import PAD_ID, Tokenizer, train_tokenizer
from lockdec.data.translation import TextPairs
from lockdec.errors import ConfigError
from lockdec.runtime.memory import require_memory
from lockdec.stages.stage import Stage, Work
from lockdec.stages.training_stage import TrainingConfig, TrainingStage
from lockdec.store import CURVE, Artifact
from lockdec.store.reading import as_dataclass, read_object
from lockdec.store.tensors import load_module, save_tensors
from lockdec.transformer.models import DecoderConfig, EncoderConfig, TransformerModel

SOURCE, TARGET = "source_tokenizer.json", "target_tokenizer.json"
CONFIG, WEIGHTS, PICTURE = "transformer.json", "transformer.safetensors", "curves.png"


@dataclass
class TranslateConfig(TrainingConfig):
    """How the book's transformer learns to translate.

    Attributes:
        seed: moves the initial weights and the order of the pairs.
        shots: how many training pairs are known, drawn by `support_seed` as a support set is; null for all.
        batch_size: pairs a step.
        label_smoothing: 0 <= value < 1, spread over the vocabulary.
        val_every: steps between two measurements on the validation split.
    """

    seed: int = MISSING
    shots: int | None = None
    support_seed: int = MISSING
    batch_size: int = MISSING
    label_smoothing: float = MISSING
    val_every: int = MISSING

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        self.check_training("translate", batch_size=1, val_every=1)
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"translate.label_smoothing={self.label_smoothing} must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class Translate(TrainingStage):
    """Learns a tokenizer for each language and the transformer; their files and the curves are the artifact.

    Attributes:
        decoder: the sizes of the decoder, and of the encoder too.
    """

    name: ClassVar[str] = "translate"
    version: ClassVar[int] = 2
    section = TranslateConfig
    code: ClassVar[tuple[str, ...]] = (
        *TrainingStage.code,
        "lockdec.data.fewshot",
        "lockdec.data.tokenizer",
        "lockdec.modules.losses",
        "lockdec.modules.translation",
    )
    exports: ClassVar[tuple[str, ...]] = (PICTURE,)
    fit: TranslateConfig
    decoder: DecoderConfig
    tokenizer: TokenizerConfig
    data: TextPairs

    def check(self) -> None:
        known_pairs(self.data, self.fit.shots, self.fit.support_seed)

    def rehearse(self, device: torch.device, before: Mapping[str, Stage], keys: Mapping[str, str]) -> None:
        require_memory(self.decoder.described, 2 * self.decoder.least_parameters)

    def fingerprints(self) -> dict[str, str]:
        return {"data": self.data.fingerprint}

    def make(self, work: Work) -> dict[str, Any]:
        import lightning as L

        from lockdec.modules.translation import Translation
        from lockdec.tracking.curves import draw_curves
        from lockdec.training.batching import TranslationDataModule

        known = known_pairs(self.data, self.fit.shots, self.fit.support_seed)
        train = [(self.data.texts[pair.index], pair.caption) for pair in known]
        val = [(self.data.texts[row], self.data.captions[row][0]) for row in self.data.splits["val"]]
        source = train_tokenizer([text for text, _ in train], self.tokenizer.vocab_size, self.data.case)
        target = train_tokenizer([translation for _, translation in train], self.tokenizer.vocab_size, self.data.case)
        source.save(work.folder / SOURCE)
        target.save(work.folder / TARGET)

        L.seed_everything(self.fit.seed, verbose=False)
        sizes = asdict(self.decoder) | {"rope_scaling": self.decoder.rope_scaling, "vocab_size": source.vocab_size}
        model = TransformerModel(
            EncoderConfig(**sizes), replace(self.decoder, vocab_size=target.vocab_size), pad_id=PAD_ID
        )
        batches = TranslationDataModule(
            source,
            target,
            train,
            val,
            batch_size=self.fit.batch_size,
            max_len=self.decoder.max_len,
            steps=self.fit.steps,
            seed=self.fit.seed,
        )
        fit = self.fit
        module = Translation(model, fit.optimizer, fit.steps, work.stage, fit.label_smoothing)
        metrics = self.train(module, batches, work, fit.seed, val_every=fit.val_every)
        draw_curves(work.folder / CURVE, work.folder / PICTURE, work.stage)
        config = {"source": asdict(model.encoder.config), "target": asdict(model.decoder.config)}
        (work.folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_tensors(model.state_dict(), work.folder / WEIGHTS)
        total = sum(weight.numel() for weight in model.parameters())
        in_encoder = sum(weight.numel() for weight in model.encoder.parameters())
        return {
            "translate": {"pairs": len(known)} | metrics,
            "parameters": {
                "total": total,
                "trainable": total,
                "per_module": {"encoder": in_encoder, "decoder": total - in_encoder},
            },
        }


def known_pairs(data: TextPairs, shots: int | None, support_seed: int) -> list[Pair]:
    """The pairs a translator may know: a support set, or every text of the training split with each translation.

    Raises:
        ConfigError: there are fewer.
    """
    if shots is not None:
        return support_set(data, shots, support_seed)
    return [Pair(row, translation) for row in data.splits["train"] for translation in data.captions[row]]


def load_translator(artifact: Artifact) -> tuple[TransformerModel, Tokenizer, Tokenizer]:
    """The trained transformer in evaluation mode, and the tokenizers of its source and its target."""
    path = artifact.path(CONFIG)
    config = read_object(path)
    source = as_dataclass(path, EncoderConfig, config.get("source"))
    target = as_dataclass(path, DecoderConfig, config.get("target"))
    model = load_module(lambda: TransformerModel(source, target, pad_id=PAD_ID), artifact.path(WEIGHTS))
    return model.eval(), Tokenizer.load(artifact.path(SOURCE)), Tokenizer.load(artifact.path(TARGET))
