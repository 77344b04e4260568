"""The default pipeline's real data at its real sizes: drawings, names, text, tokenizer, support set and states.

Each is made once per process, outside of any measurement.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from benchmarks.worker import device
from lockdec.config.building import Builder
from lockdec.config.checking import plain
from lockdec.config.schema import config_folder, register
from lockdec.data.fewshot import Pair, support_set
from lockdec.data.text import pretraining_text
from lockdec.data.tokenizer import Tokenizer, train_tokenizer
from lockdec.encoders.contract import Encoder
from lockdec.encoders.encoded import EncodedSet
from lockdec.encoders.normalisation import Normalisation
from lockdec.modules.captioning import Captioning
from lockdec.pipeline.assembling import build_stages
from lockdec.stages.attach import Attach
from lockdec.stages.finetune import Finetune
from lockdec.stages.pretrain import Pretrain
from lockdec.stages.stage import Stage
from lockdec.stages.unlock import Unlock
from lockdec.training.batching import SupportDataModule, TextDataModule
from lockdec.transformer.models import LockingDecoderModel

FOREVER = 10**9  # steps: longer than any measurement


@cache
def stages() -> dict[str, Stage]:
    """The default pipeline's stages, with their data opened."""
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("config")
    return build_stages({name: plain(config.stages[name]) for name in config.pipeline.order}, Builder())


def pretrain() -> Pretrain:
    """The default pretrain stage."""
    return cast(Pretrain, stages()["pretrain"])


def finetune() -> Finetune:
    """The default finetune stage."""
    return cast(Finetune, stages()["finetune"])


def encoder() -> Encoder:
    """The default encoder."""
    return cast(Encoder, cast(Attach, stages()["attach"]).encoder)


@cache
def text() -> list[str]:
    """The lines of the pretraining text."""
    stage = pretrain()
    return pretraining_text(stage.data, list(stage.sources.values()), stage.name_repeats)


@cache
def tokenizer() -> Tokenizer:
    """The tokenizer that the pretrain stage trains."""
    return train_tokenizer(text(), pretrain().tokenizer.vocab_size)


@cache
def pairs() -> list[Pair]:
    """The support set."""
    return support_set(finetune().data, finetune().fewshot.shots, finetune().fewshot.support_seed)


@cache
def encoded() -> EncodedSet:
    """The states of the support set's drawings, stored as the attach stage stores them; the other rows are empty."""
    data, rows = finetune().data, [pair.index for pair in pairs()]
    found = encoder().encode(data.inputs(rows)).states
    normalise = cast(Attach, stages()["attach"]).normalise
    normalisation = Normalisation.fit(normalise, [found.flatten(0, 1)], encoder().groups)
    states = np.zeros((len(data), *found.shape[1:]), np.float16)
    states[rows] = normalisation(found).numpy()
    return EncodedSet(states, np.full(len(data), found.shape[1]), data.ids, normalisation)


def texts(steps: int = FOREVER) -> TextDataModule:
    """The text in batches, as the pretrain stage makes them."""
    fit = pretrain().fit
    longest = pretrain().decoder.max_len
    return TextDataModule(
        tokenizer(), text(), batch_tokens=fit.batch_tokens, max_len=longest, steps=steps, seed=fit.seed
    )


def support(steps: int = FOREVER) -> SupportDataModule:
    """The support set in batches, as the finetune stage makes them."""
    return SupportDataModule(
        tokenizer(),
        pairs(),
        encoded(),
        batch_size=finetune().fit.batch_size,
        max_len=pretrain().decoder.max_len,
        steps=steps,
        seed=finetune().seed,
    )


def captioner() -> LockingDecoderModel:
    """An unlocked decoder with random weights, as the finetune stage would train it."""
    torch.manual_seed(0)
    model = LockingDecoderModel(pretrain().decoder)
    model.attach(cast(Unlock, stages()["unlock"]).cross_attention, encoded().dim)
    model.unlock()
    return model.to(device())


def on_device(batch: Any) -> Any:
    """The batch on the device of the model."""
    return type(batch)(*(part if part is None else part.to(device()) for part in batch))


def captioning(model: LockingDecoderModel) -> Captioning:
    """What the finetune stage trains."""
    return finetune().module(model, tokenizer().special.eos)
