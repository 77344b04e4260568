"""Teach the decoder the captions of the support set without an input: the language prior, a control of evaluation.

Cross-attention over a single state that is the same for every input adds the same vector at every position, whatever
its sizes and its query: the softmax over one state is 1. So each layer learns one vector of d_model numbers, in the
place of what its cross-attention would add. What a captioner reaches beyond that comes from its input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from omegaconf import MISSING

from lockdec.config.schema import FewshotConfig
from lockdec.data.captions import CaptionSet, digest
from lockdec.data.fewshot import Pair, support_set
from lockdec.distributed import ranks
from lockdec.evaluation.controls import ConstantState
from lockdec.evaluation.stored import (
    load_chat,
    load_decoder,
    load_tokenizer,
    precision_of,
    save_bridge,
    save_prompt,
)
from lockdec.runtime.devices import place_on
from lockdec.stages.prompting import prompt_fingerprint, prompted, require_room, words_of
from lockdec.stages.stage import DecoderStage, Stage, Work
from lockdec.stages.training_stage import TrainingConfig, TrainingStage
from lockdec.training.prefix import FrozenPrefix
from lockdec.transformer.models import CrossAttentionConfig, LockingModel

ONE_VECTOR = CrossAttentionConfig(heads=1, d_q=1, d_k=1, d_v=1, unlock="zero_output")


@dataclass
class PriorConfig(TrainingConfig):
    """How the decoder learns the captions of the support set alone.

    Attributes:
        batch_size: captions a step.
        layers: which layers learn a vector, chosen as by `cross_attention.layers`.
    """

    batch_size: int = MISSING
    layers: Any = MISSING

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        self.check_training("prior", batch_size=1)


@dataclass(frozen=True, kw_only=True)
class Prior(TrainingStage):
    """Learns a vector for each layer; they are the artifact, in the form of a cross-attention over one state.

    It reads neither inputs nor encoder, nor the sizes of cross-attention: all cells of a sweep that have the decoder
    and the support set in common share it.

    Attributes:
        prompt, chat: of finetuning; the prompt stands before every caption here, too, and is not learned.
    """

    name: ClassVar[str] = "prior"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[type[Stage], ...]] = (DecoderStage,)
    fingerprinted: ClassVar[tuple[str, ...]] = (*TrainingStage.fingerprinted, "data", "fewshot")  # their captions
    section = PriorConfig
    code: ClassVar[tuple[str, ...]] = (
        *TrainingStage.code,
        "lockdec.data.fewshot",
        "lockdec.evaluation.controls",
        "lockdec.modules.captioning",
        "lockdec.modules.language_modeling",
        "lockdec.modules.losses",
        "lockdec.stages.prompting",
        "lockdec.training.prefix",
        "lockdec.transformer.attention",
        "lockdec.transformer.cross_attention",
    )
    fit: PriorConfig
    data: CaptionSet
    fewshot: FewshotConfig
    prompt: str | None = None
    chat: bool = False
    seed: int

    def check(self) -> None:
        _ = self.support

    @cached_property
    def support(self) -> list[Pair]:
        """The pairs whose captions are learned."""
        return support_set(self.data, self.fewshot.shots, self.fewshot.support_seed, self.fewshot.references)

    def fingerprints(self) -> dict[str, str]:
        chosen = prompt_fingerprint(self.prompt, self.data)
        return {"captions": digest([pair.caption for pair in self.support])} | chosen

    def make(self, work: Work) -> dict[str, Any]:
        from lockdec.modules.captioning import Captioning
        from lockdec.training.batching import SupportDataModule

        words = words_of(self.prompt, self.data)
        tokenizer = prompted(load_tokenizer(*work.decoder), load_chat(*work.decoder), words, self.chat)
        if tokenizer.prompt is not None:
            save_prompt(tokenizer.prompt, work.folder)
        model = load_decoder(*work.decoder, device=work.device)
        prompt_length, max_len = len(tokenizer.prompt_tokens), model.config.max_len
        require_room(prompt_length, None, max_len)
        vectors = attach_vectors(model, self.fit.layers)
        fit, layers = self.fit, model.frozen_layers
        module = Captioning(
            model,
            fit.optimizer,
            fit.steps,
            self.name,
            eos_id=tokenizer.special.eos,
            prefix_layers=layers,
            prompt_length=prompt_length,
        )
        for name, weight in model.cross_attention_parameters().items():
            weight.requires_grad_(name in vectors)
        batches = SupportDataModule(
            tokenizer,
            self.support,
            ConstantState(),
            batch_size=fit.batch_size,
            max_len=max_len,
            steps=fit.steps,
            seed=self.seed,
        )
        if layers and not ranks.several():
            place_on(model, work.device)
            batches.prefix = FrozenPrefix(model, batches.sequences, layers, work.folder, self.trainer.precision)
        try:
            metrics = self.train(module, batches, work, self.seed)
        finally:
            if batches.prefix is not None:
                batches.prefix.close()
        save_bridge(model, work.folder)
        cost = {} if batches.prefix is None else batches.prefix.metrics
        trained = {"parameters": sum(vector.numel() for vector in vectors.values()), "dtype": precision_of(model)}
        return {"prior": metrics | trained | cost}


def attach_vectors(model: LockingModel, layers: Any) -> Mapping[str, torch.nn.Parameter]:
    """Give layers a vector to add to every position, initially 0: unlocked cross-attention over `ConstantState`.

    Args:
        model: locked.
        layers: which, as `cross_attention.layers` has it.

    Returns:
        The vectors, each a matrix of one column, by the names of their weights.
    """
    model.attach(replace(ONE_VECTOR, layers=layers), encoder_dim=ConstantState.dim)
    weights = model.cross_attention_parameters()
    with torch.no_grad():
        for name, weight in weights.items():
            # What a layer adds is then the weight of its output projection, whatever query and key.
            weight.fill_(name.endswith(".value.weight"))
    model.unlock()
    return {name: weight for name, weight in weights.items() if name.endswith(".output.weight")}
