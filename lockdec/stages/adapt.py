"""Adapt the upper layers of the locked decoder to unpaired text of the domain, as one pretrained here has read it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from omegaconf import MISSING

from lockdec.data.captions import CaptionSet
from lockdec.data.text import TextSource, pretraining_text, with_sources
from lockdec.errors import ConfigError
from lockdec.evaluation.stored import load_chat, load_decoder, load_tokenizer, save_changed
from lockdec.runtime.devices import place_on
from lockdec.stages.host_decoder import HostDecoder
from lockdec.stages.prompting import prompt_fingerprint, prompted, require_room, words_of
from lockdec.stages.stage import DecoderStage, Stage, Work
from lockdec.stages.training_stage import TrainingConfig, TrainingStage
from lockdec.training.prefix import FrozenPrefix
from lockdec.transformer.models import LockingDecoderModel


@dataclass
class AdaptConfig(TrainingConfig):
    """How the upper layers of the locked decoder learn the text of the domain.

    Attributes:
        seed: moves the order of the text.
        batch_size: lines a step.
        layers: which layers learn: last_n, or all; the token embedding never does.
        repeats: how often each training caption occurs in the text, beside that of other sources.
    """

    seed: int = MISSING
    batch_size: int = MISSING
    layers: str = MISSING
    repeats: int = MISSING

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        self.check_training("adapt", batch_size=1, repeats=0)
        if not re.fullmatch(r"all|last_\d+", self.layers):
            raise ConfigError(f"adapt.layers={self.layers}: use all or last_n, the last n layers")

    def frozen(self, layers: int) -> int:
        """How many of a decoder's layers lie below those that learn; ConfigError where it does not have so many."""
        learns = layers if self.layers == "all" else int(self.layers.removeprefix("last_"))
        if not 1 <= learns <= layers:
            raise ConfigError(f"adapt.layers={self.layers}: use all or last_n (n from 1 to {layers})")
        return layers - learns


@dataclass(frozen=True, kw_only=True)
class Adapt(TrainingStage, DecoderStage):
    """Trains some layers of the decoder, which stays locked; the weights that changed are the artifact.

    Attributes:
        sources: text beside the captions of the training split.
        prompt, chat: of finetuning; the prompt stands before every line here, too, and is not learned.
    """

    name: ClassVar[str] = "adapt"
    version: ClassVar[int] = 1
    neutral: ClassVar[tuple[str, ...]] = (
        *TrainingStage.neutral,
        "prompt is null",
        "chat=False",
    )
    fingerprinted: ClassVar[tuple[str, ...]] = (*TrainingStage.fingerprinted, "data")  # its captions
    reads: ClassVar[tuple[type[Stage], ...]] = (DecoderStage,)
    section = AdaptConfig
    code: ClassVar[tuple[str, ...]] = (
        *TrainingStage.code,
        "lockdec.data.text",
        "lockdec.modules.adaptation",
        "lockdec.modules.language_modeling",
        "lockdec.modules.losses",
        "lockdec.stages.prompting",
        "lockdec.training.prefix",
    )
    fit: AdaptConfig
    data: CaptionSet
    sources: dict[str, TextSource]
    prompt: str | None = None
    chat: bool = False

    def check_after(self, before: Mapping[str, Stage]) -> None:
        """Refuse a decoder that is kept as it is, and layers that a decoder does not have."""
        decoder = before[DecoderStage.name]
        if isinstance(decoder, HostDecoder):
            raise ConfigError("stages.adapt: a hosted decoder is kept as it is; import one of a known family "
                              "(decoder=llama), or leave out adapt")  # fmt: skip
        if isinstance(decoder, DecoderStage) and "layers" in decoder.sizes:
            self.fit.frozen(decoder.sizes["layers"])

    def fingerprints(self) -> dict[str, str]:
        chosen = prompt_fingerprint(self.prompt, self.data)
        return with_sources({"captions": self.data.text_fingerprint} | chosen, self.sources)

    def make(self, work: Work) -> dict[str, Any]:
        from lockdec.modules.adaptation import Adaptation
        from lockdec.training.batching import LineDataModule

        text = pretraining_text(self.data, list(self.sources.values()), self.fit.repeats, "adapt.repeats")
        words = words_of(self.prompt, self.data)
        tokenizer = prompted(load_tokenizer(*work.decoder), load_chat(*work.decoder), words, self.chat)
        # A step of training is often smaller than the distance between two numbers in bfloat16.
        model = load_decoder(*work.decoder, device=work.device, dtype="float32")
        assert isinstance(model, LockingDecoderModel)  # not hosted
        require_room(len(tokenizer.prompt_tokens), None, model.config.max_len)
        frozen = self.fit.frozen(model.config.layers)
        place_on(model, work.device)
        lines, val = (tokenizer.sequences(texts, model.config.max_len) for texts in (text, self.data.references("val")))
        batches = LineDataModule(
            lines,
            val,
            pad_id=tokenizer.special.pad,
            batch_size=self.fit.batch_size,
            steps=self.fit.steps,
            seed=self.fit.seed,
        )
        if frozen:
            shown = [lines[row] for row in batches.shown]
            batches.prefix = FrozenPrefix(model, shown, frozen, work.folder, self.trainer.precision)
        module = Adaptation(
            model,
            self.fit.optimizer,
            self.fit.steps,
            work.stage,
            eos_id=tokenizer.special.eos,
            prefix_layers=frozen,
            prompt_length=len(tokenizer.prompt_tokens),
        )
        try:
            metrics = self.train(module, batches, work, self.fit.seed)
        finally:
            if batches.prefix is not None:
                batches.prefix.close()
        save_changed(model, work.folder)
        return {"adapt": metrics | {"lines": len(text)} | ({} if batches.prefix is None else batches.prefix.metrics)}
