"""Finetune the cross-attention, and only it, on the pairs of the support set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from omegaconf import MISSING

from lockdec.config.schema import FewshotConfig
from lockdec.data.captions import CaptionSet
from lockdec.data.fewshot import Pair, support_set
from lockdec.distributed import ranks
from lockdec.encoders.encoded import EncodedSet
from lockdec.errors import ConfigError
from lockdec.evaluation.looking import Looking
from lockdec.evaluation.stored import load_captioner, load_tokenizer, save_cross_attention
from lockdec.modules.captioning import Captioning
from lockdec.optimizers.optimization import FinetuneOptimizerConfig
from lockdec.runtime.devices import place_on
from lockdec.stages.attach import Attach
from lockdec.stages.stage import DecoderStage, Stage, Work
from lockdec.stages.training_stage import TrainingConfig, TrainingStage
from lockdec.stages.unlock import Unlock
from lockdec.training.batching import SupportDataModule
from lockdec.training.prefix import FrozenPrefix
from lockdec.transformer.models import LockingDecoderModel

WATCHED = 64  # validation pairs, measured for the loggers alone


@dataclass
class FinetuneConfig(TrainingConfig):
    """How the unlocked cross-attention learns from the support set.

    Attributes:
        batch_size: pairs a step.
        label_smoothing: 0 <= value < 1, spread over the vocabulary.
        decoder_dropout: whether the frozen decoder's dropout is on while its cross-attention learns.
        state_noise: standard deviation of the Gaussian noise added to the normalised encoder states.
        state_dropout: share of encoder states dropped from each pair at each step.
    """

    batch_size: int = MISSING
    label_smoothing: float = MISSING
    decoder_dropout: bool = MISSING
    state_noise: float = MISSING
    state_dropout: float = MISSING
    optimizer: FinetuneOptimizerConfig = field(default_factory=FinetuneOptimizerConfig)

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        self.check_training("finetune", batch_size=1, state_noise=0)
        for name in ("label_smoothing", "state_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"finetune.{name}={getattr(self, name)} must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class Finetune(TrainingStage):
    """Learns from the support set and nothing else of the data; the trained cross-attention is the artifact."""

    name: ClassVar[str] = "finetune"
    version: ClassVar[int] = 3
    reads: ClassVar[tuple[type[Stage], ...]] = (DecoderStage, Attach, Unlock)
    section = FinetuneConfig
    code: ClassVar[tuple[str, ...]] = (
        *TrainingStage.code,
        "lockdec.data.fewshot",
        "lockdec.modules.captioning",
        "lockdec.modules.language_modeling",
        "lockdec.training.prefix",
    )
    together: ClassVar[bool] = True
    neutral: ClassVar[tuple[str, ...]] = (
        *TrainingStage.neutral,
        "fewshot.references=one",  # what a stage is without it
    )
    fit: FinetuneConfig
    data: CaptionSet
    fewshot: FewshotConfig
    seed: int

    def check(self) -> None:
        self.support()

    def support(self) -> list[Pair]:
        """The pairs of the support set."""
        return support_set(self.data, self.fewshot.shots, self.fewshot.support_seed, self.fewshot.references)

    def fingerprints(self) -> dict[str, str]:
        return {"data": self.data.fingerprint}

    def make(self, work: Work) -> dict[str, Any]:
        pairs = self.support()
        encoded = EncodedSet.open(work.parent(Attach).folder)
        tokenizer = load_tokenizer(*work.decoder)
        model = load_captioner(*work.decoder, work.parent(Unlock))
        batches = SupportDataModule(
            tokenizer,
            pairs,
            encoded,
            batch_size=self.fit.batch_size,
            max_len=model.config.max_len,
            steps=self.fit.steps,
            seed=self.seed,
        )
        watched: list[Looking] = []
        if seen := self.data.splits["val"][:WATCHED]:
            captions = tokenizer.batch([self.data.captions[row][0] for row in seen], model.config.max_len)
            watched = [Looking(work.stage, captions, encoded.batch(seen), tokenizer.special.eos)]
        frozen = decoder_fingerprint(model)
        module = self.module(model, tokenizer.special.eos)
        batches.prefix = prefix = self.prefix(model, batches.sequences, work)
        try:
            metrics = self.train(module, batches, work, self.seed, watched)
        finally:
            if prefix is not None:
                prefix.close()
        save_cross_attention(model, work.folder)
        return {
            "fewshot": {
                "shots": self.fewshot.shots,
                "pairs": len(pairs),
                "support_seed": self.fewshot.support_seed,
            },
            "finetune": metrics | ({} if prefix is None else prefix.metrics),
            "frozen": {"decoder_ok": decoder_fingerprint(model) == frozen},
        }

    def prefix(self, model: LockingDecoderModel, sequences: Sequence[Sequence[int]], work: Work) -> FrozenPrefix | None:
        """The hidden states of the captions below the lowest cross-attention, which no step changes.

        None where every layer has cross-attention, where dropout changes them in each step, and where several ranks
        train, since a rank may have only its shard of these layers.
        """
        layers = model.decoder.below_cross_attention
        random = self.fit.decoder_dropout and model.config.dropout > 0
        if layers == 0 or random or ranks.several():
            return None
        place_on(model, work.device)
        return FrozenPrefix(model, sequences, layers, work.folder)

    def module(self, model: LockingDecoderModel, eos_id: int) -> Captioning:
        """The objective: captions of the support set, given states perturbed as the config says."""
        fit = self.fit
        return Captioning(
            model,
            fit.optimizer,
            fit.steps,
            self.name,
            eos_id=eos_id,
            prefix_layers=model.decoder.below_cross_attention,
            label_smoothing=fit.label_smoothing,
            decoder_dropout=fit.decoder_dropout,
            state_noise=fit.state_noise,
            state_dropout=fit.state_dropout,
        )


def decoder_fingerprint(model: LockingDecoderModel) -> str:
    """The sha256 of every tensor that is not cross-attention."""
    trained = model.cross_attention_parameters()
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name not in trained:
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
