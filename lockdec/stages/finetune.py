"""Finetune the bridge, and only it, on the pairs of the support set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from omegaconf import MISSING

from lockdec.config.schema import FewshotConfig
from lockdec.data.captions import CaptionSet
from lockdec.data.fewshot import Pair, hold_out, support_set
from lockdec.data.tokenizer import Tokenizer
from lockdec.distributed import ranks
from lockdec.encoders.encoded import EncodedSet
from lockdec.errors import ConfigError
from lockdec.evaluation.stored import (
    decoder_fingerprint,
    load_captioner,
    load_chat,
    load_tokenizer,
    precision_of,
    save_bridge,
    save_prompt,
)
from lockdec.optimizers.optimization import FinetuneOptimizerConfig
from lockdec.runtime.devices import place_on
from lockdec.stages.attach import Attach
from lockdec.stages.pretrain import Pretrain
from lockdec.stages.prompting import NO_CHAT, prompt_fingerprint, prompted, require_room, tell_cut, words_of
from lockdec.stages.stage import DecoderStage, Stage, Work
from lockdec.stages.training_stage import TrainingConfig, TrainingStage
from lockdec.stages.unlock import Unlock
from lockdec.training.prefix import FrozenPrefix
from lockdec.transformer.configuration import HostedConfig
from lockdec.transformer.models import LockingModel

if TYPE_CHECKING:
    import lightning as L

    from lockdec.evaluation.selection import BestStep
    from lockdec.modules.captioning import Captioning

WATCHED = 64  # validation pairs, measured for the loggers alone


@dataclass
class FinetuneConfig(TrainingConfig):
    """How the unlocked bridge learns from the support set.

    Attributes:
        batch_size: pairs a step.
        label_smoothing: 0 <= value < 1, spread over the vocabulary.
        decoder_dropout: whether the frozen decoder's dropout is on while the bridge learns.
        state_noise: standard deviation of the Gaussian noise added to the normalised encoder states.
        state_dropout: share of encoder states dropped from each pair at each step.
        select: "last" keeps the last step; "held_out" holds out an eighth of the support set, at least one input, and
            keeps the step with the lowest loss on it, measured every 20 steps and after the last.
        prompt: words before every caption, in training, evaluation and use; "auto" for those that suit the data; None
            for none. No loss is measured on them.
        chat: whether the prompt is the user's message, and the caption the answer, in the chat template of the decoder.
    """

    batch_size: int = MISSING
    label_smoothing: float = MISSING
    decoder_dropout: bool = MISSING
    state_noise: float = MISSING
    state_dropout: float = MISSING
    select: str = "last"
    prompt: str | None = None
    chat: bool = False
    optimizer: FinetuneOptimizerConfig = field(default_factory=FinetuneOptimizerConfig)

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        self.check_training("finetune", batch_size=1, state_noise=0)
        for name in ("label_smoothing", "state_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"finetune.{name}={getattr(self, name)} must be at least 0 and below 1")
        if self.select not in ("last", "held_out"):
            raise ConfigError(f"finetune.select={self.select} is not one of: last, held_out")
        if self.prompt is not None and not self.prompt.strip():
            raise ConfigError("finetune.prompt is blank: give the words before every caption, or null for none")
        if self.chat and self.prompt is None:
            raise ConfigError("finetune.chat=true: finetune.prompt is null; give the user's message")


@dataclass(frozen=True, kw_only=True)
class Finetune(TrainingStage):
    """Learns from the support set and nothing else of the data; the trained bridge is the artifact."""

    name: ClassVar[str] = "finetune"
    version: ClassVar[int] = 4
    reads: ClassVar[tuple[type[Stage], ...]] = (DecoderStage, Attach, Unlock)
    section = FinetuneConfig
    code: ClassVar[tuple[str, ...]] = (
        *TrainingStage.code,
        "lockdec.data.fewshot",
        "lockdec.data.tokenizer",
        "lockdec.evaluation.selection",
        "lockdec.modules.captioning",
        "lockdec.modules.language_modeling",
        "lockdec.modules.losses",
        "lockdec.stages.prompting",
        "lockdec.training.prefix",
    )
    together: ClassVar[bool] = True
    neutral: ClassVar[tuple[str, ...]] = (
        *TrainingStage.neutral,
        "fewshot.references=one",  # what a stage is without it, as below
        "fit.prompt is null",
        "fit.chat=False",
        "fit.select=last",
    )
    fit: FinetuneConfig
    data: CaptionSet
    fewshot: FewshotConfig
    seed: int

    def check(self) -> None:
        self.split_support()

    @cached_property
    def support(self) -> list[Pair]:
        """The pairs of the support set."""
        return support_set(self.data, self.fewshot.shots, self.fewshot.support_seed, self.fewshot.references)

    def check_after(self, before: Mapping[str, Stage]) -> None:
        """Refuse a message to a decoder that is pretrained here and knows no chat, and sharding with another bridge."""
        if self.fit.chat and isinstance(before[Pretrain.name], Pretrain):
            raise ConfigError(NO_CHAT)
        unlock = before[Unlock.name]
        if isinstance(unlock, Unlock):
            unlock.check_support(self.fewshot, [(self.data.ids[pair.index], pair.caption) for pair in self.support])
        if self.trainer.strategy == "fsdp" and isinstance(unlock, Unlock) and unlock.bridge is not None:
            raise ConfigError(f"trainer.strategy=fsdp: bridge={unlock.bridge.kind} is not sharded; use ddp")

    def split_support(self) -> tuple[list[Pair], list[Pair]]:
        """The pairs to learn from, and those that the step is chosen by."""
        return hold_out(self.support) if self.fit.select == "held_out" else (self.support, [])

    @property
    def prompt(self) -> str | None:
        """The words before every caption."""
        return words_of(self.fit.prompt, self.data)

    def fingerprints(self) -> dict[str, str]:
        return {"data": self.data.fingerprint} | prompt_fingerprint(self.fit.prompt, self.data)

    def make(self, work: Work) -> dict[str, Any]:
        from lockdec.training.batching import SupportDataModule

        pairs, held_out = self.split_support()
        encoded = EncodedSet.open(work.parent(Attach).folder)
        tokenizer = prompted(load_tokenizer(*work.decoder), load_chat(*work.decoder), self.prompt, self.fit.chat)
        if tokenizer.prompt is not None:
            save_prompt(tokenizer.prompt, work.folder)
        model = load_captioner(*work.decoder, work.parent(Unlock), device=work.device)
        prompt_length = len(tokenizer.prompt_tokens)
        require_room(prompt_length, None, model.config.max_len, model.config.max_len - model.room)
        batches = SupportDataModule(
            tokenizer,
            pairs,
            encoded,
            batch_size=self.fit.batch_size,
            max_len=model.room,
            steps=self.fit.steps,
            seed=self.seed,
        )
        learns = bool(model.bridge_parameters()) and not model.apart  # neither retrieval alone does, nor trained plugs
        cut = tell_cut(work.stage, batches.sequences, tokenizer.special.eos, model.config.max_len) if learns else 0
        best = self.best_step(held_out, tokenizer, encoded, model.room) if learns else []
        callbacks = [*self.statistics(tokenizer, encoded, model.room), *best]
        frozen = decoder_fingerprint(model)
        module = self.module(model, tokenizer.special.eos, prompt_length, encoded.normalisation.apart)
        batches.prefix = prefix = self.prefix(model, batches.sequences, work)
        try:
            metrics = self.train(module, batches, work, self.seed, callbacks) if learns else {}
        finally:
            if prefix is not None:
                prefix.close()
        for chosen in best:
            chosen.restore(model)
            metrics |= {"kept_step": chosen.step, "held_out_loss": chosen.loss, "held_out_pairs": len(held_out)}
        save_bridge(model, work.folder)
        return {
            "fewshot": {
                "shots": self.fewshot.shots,
                "pairs": len(pairs) + len(held_out),
                "support_seed": self.fewshot.support_seed,
            },
            "prompt": {"text": self.prompt, "chat": self.fit.chat, "tokens": prompt_length},
            "finetune": {
                **metrics,
                "dtype": precision_of(model),
                **({} if prefix is None else prefix.metrics),
                **({"cut_captions": cut} if cut else {}),
            },
            "frozen": {"decoder_ok": decoder_fingerprint(model) == frozen},
        }

    def prefix(self, model: LockingModel, sequences: Sequence[Sequence[int]], work: Work) -> FrozenPrefix | None:
        """The hidden states of the captions below the lowest cross-attention, which no step changes.

        None where every layer has cross-attention or another bridge works below it, where dropout changes them in each
        step (a hosted decoder may have some of its own), and where several ranks train, since a rank may have only its
        shard of these layers.
        """
        layers = model.frozen_layers
        random = self.fit.decoder_dropout and (model.config.dropout > 0 or isinstance(model.config, HostedConfig))
        if layers == 0 or random or ranks.several():
            return None
        place_on(model, work.device)
        return FrozenPrefix(model, sequences, layers, work.folder, self.trainer.precision)

    def statistics(self, tokenizer: Tokenizer, encoded: EncodedSet, max_len: int) -> list[L.Callback]:
        """What logs how the bridge attends to some validation inputs; nothing where there are none."""
        from lockdec.evaluation.attention_logging import AttentionStatistics

        rows = self.data.splits["val"][:WATCHED]
        if not rows:
            return []
        captions = tokenizer.batch([self.data.captions[row][0] for row in rows], max_len)
        prompt_length = len(tokenizer.prompt_tokens)
        return [AttentionStatistics(self.name, captions, encoded.batch(rows), tokenizer.special.eos, prompt_length)]

    def best_step(
        self, held_out: Sequence[Pair], tokenizer: Tokenizer, encoded: EncodedSet, max_len: int
    ) -> list[BestStep]:
        """What chooses the step by the held-out pairs; nothing where there are none."""
        from lockdec.evaluation.selection import BestStep
        from lockdec.training.batching import CaptionBatch

        if not held_out:
            return []
        batches = []
        for start in range(0, len(held_out), self.fit.batch_size):
            several = held_out[start : start + self.fit.batch_size]
            tokens = tokenizer.batch([pair.caption for pair in several], max_len)
            rows = [pair.index for pair in several]
            batches.append(CaptionBatch(tokens, encoded.batch(rows), torch.tensor(rows)))
        return [BestStep(self.name, batches, tokenizer.special.eos, len(tokenizer.prompt_tokens))]

    def module(self, model: LockingModel, eos_id: int, prompt_length: int = 0, apart: Sequence[int] = ()) -> Captioning:
        """The objective: captions of the support set, given states perturbed as the config says."""
        from lockdec.modules.captioning import Captioning

        fit = self.fit
        return Captioning(
            model,
            fit.optimizer,
            fit.steps,
            self.name,
            eos_id=eos_id,
            prefix_layers=model.frozen_layers,
            prompt_length=prompt_length,
            label_smoothing=fit.label_smoothing,
            decoder_dropout=fit.decoder_dropout,
            state_noise=fit.state_noise,
            state_dropout=fit.state_dropout,
            apart=apart,
        )
