"""Every value that an option allows trains for real: a few steps at the smallest size, and what follows them.

The options and their values are asked of the config itself: a text that no option allows is refused with those that
are. So a new value is tested as soon as there is one. Each option of the group `bridge` trains in
tests/bridges/test_runs.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from lockdec.config.building import Builder
from lockdec.errors import LockdecError
from lockdec.modules.captioning import Captioning
from lockdec.optimizers.optimization import FinetuneOptimizerConfig
from lockdec.pipeline.assembling import build_stages, checked_subtrees
from lockdec.training.batching import CaptionBatch
from lockdec.transformer.configuration import NORM_KINDS, NORMS, UNLOCKS
from tests.conftest import composed, run_tiny
from tests.transformer.tiny_transformers import (
    ENCODER_DIM,
    cross_attention_config,
    encoded_batch,
    locking_model,
    token_batch,
)

SHORT = (
    *("data.limit=64", "fewshot.shots=8", "~text.sources.wikipedia"),
    *(f"{stage}.steps=2" for stage in ("pretrain", "adapt", "finetune", "prior")),
)
BASES = {
    "captioning": ("experiment=adapt", *SHORT),
    "text encoder": (
        *("data=tunes", "data.limit=64", "encoder=mlm"),
        *("pipeline.order=[pretrain_encoder]", "pretrain_encoder.steps=2"),
    ),
    "vae": ("encoder=vae", "pipeline.order=[pretrain_vae]", "pretrain_vae.steps=2", "data.limit=64"),
    "vqvae": ("encoder=vqvae", "pipeline.order=[pretrain_vqvae]", "pretrain_vqvae.steps=2", "data.limit=64"),
    "translation": ("experiment=translation", "translate.steps=2", "translate.val_every=1"),
}
SECTIONS = {  # what the stages of a base read; all of it for captioning, since it comes first
    "captioning": ("",),
    "text encoder": ("pretrain_encoder.", "trainer."),
    "vae": ("pretrain_vae.", "trainer."),
    "vqvae": ("pretrain_vqvae.", "trainer."),
    "translation": ("translate.", "decoder.", "evaluate.", "trainer."),
}
ELSEWHERE = {  # what this machine or this process alone cannot do, and the tests that do it
    "trainer.accelerator": "tests/runtime/test_devices.py",
    "trainer.strategy": "tests/faults/test_ranks.py",
    "trainer.precision=16-mixed": "needs a GPU; with one, it takes the way of bf16-mixed",
    "logger.mode": "tests/tracking",
    "data.on_bad": "tests/data",
    "data.source": "the two languages have to differ: tests/data/test_translation.py",
    "data.target": "as data.source",
}


def texts(node: DictConfig, above: str = "") -> Iterator[str]:
    """The dotted key of every text in a config; what refers to another key is that key's."""
    for name in map(str, node):
        key = f"{above}.{name}" if above else name
        if OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name):
            continue
        if isinstance(node[name], DictConfig):
            yield from texts(node[name], key)
        elif isinstance(node[name], str) and name != "_target_" and not key.startswith("paths."):
            yield key


def options(config: DictConfig, sections: tuple[str, ...]) -> dict[str, list[str]]:
    """The values that each option in these sections allows, as its refusal of another one lists them."""
    found, builder = {}, Builder()
    for key in filter(lambda key: key.startswith(sections), texts(config)):
        other = config.copy()
        OmegaConf.update(other, key, "nonsense")
        try:
            build_stages(checked_subtrees(other, builder)[1], builder)
        except LockdecError as error:
            listed = re.search(r"(?:nonsense is not one of: |nonsense: use |input should be )(.+)$", str(error))
            if listed:  # of layers, it says `last_n`
                words = re.sub(r" \(.*|, the last n.*|, or a list.*", "", listed[1]).replace("_n", "_1")
                found[key] = [word.strip("'") for word in re.split(r", | or ", words)]
    return found


@pytest.mark.parametrize("base", BASES)
def test_every_value_of_every_option_trains(base: str, tmp_path: Path) -> None:
    """As many runs as the option with the most values has; each run chooses another value of every option."""
    allowed = {
        key: left
        for key, values in options(composed("debug=tiny", *BASES[base]), SECTIONS[base]).items()
        if key not in ELSEWHERE and (left := [value for value in values if f"{key}={value}" not in ELSEWHERE])
    }
    wanted = {
        "captioning": {
            "decoder.norm", "decoder.position", "decoder.activation", "decoder.bias", "adapt.layers",
            "cross_attention.unlock", "cross_attention.layers", "data.split", "data.case", "fewshot.references",
            "trainer.precision", "trainer.on_nan", "finetune.select",
            "finetune.optimizer.kind", "finetune.optimizer.schedule", "evaluate.split", "evaluate.strategy",
        },
        "text encoder": {"pretrain_encoder.model.norm", "pretrain_encoder.optimizer.schedule"},
        "vae": {"pretrain_vae.optimizer.schedule"},
        "vqvae": {"pretrain_vqvae.optimizer.schedule"},
        "translation": {"translate.optimizer.schedule", "evaluate.strategy"},
    }  # fmt: skip
    assert allowed.keys() >= wanted[base], "an option is no longer refused with a list of its values"
    for number in range(max(map(len, allowed.values()))):
        chosen = [f"{key}={values[number % len(values)]}" for key, values in allowed.items()]
        result = run_tiny(tmp_path, str(number), *BASES[base], *chosen).result
        assert result["status"] == "ok", chosen
        assert all(math.isfinite(value) for value in measured(result)), chosen


def measured(result: Mapping[str, Any]) -> Iterator[float]:
    """Every loss in a result."""
    for name, value in result.items():
        if isinstance(value, Mapping):
            yield from measured(value)
        elif "loss" in name and isinstance(value, float):
            yield value


@pytest.mark.parametrize("unlock", UNLOCKS)
@pytest.mark.parametrize("norm_kind", NORM_KINDS)
@pytest.mark.parametrize("norm", NORMS)
def test_cross_attention_learns_however_it_is_unlocked_and_normalised(norm: str, norm_kind: str, unlock: str) -> None:
    """Eight steps on one batch lower its loss; the decoder keeps its weights bit by bit."""
    model = locking_model(norm=norm, norm_kind=norm_kind)
    model.attach(cross_attention_config(unlock=unlock), ENCODER_DIM)
    model.unlock()
    trained = model.cross_attention_parameters()
    frozen = {name: weight.clone() for name, weight in model.state_dict().items() if name not in trained}
    optimizer = FinetuneOptimizerConfig(0.05, 0.0, [0.9, 0.95], 0, "constant", 1.0, kind="adamw")
    module = Captioning(model, optimizer, steps=8, stage="finetune", eos_id=2)
    batch = CaptionBatch(token_batch(), encoded_batch(), torch.arange(3))
    adamw = torch.optim.AdamW(trained.values(), lr=0.05, weight_decay=0.0)
    losses = []
    for _ in range(8):
        loss = module.objective(batch)
        losses.append(float(loss.detach()))
        adamw.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adamw.step()
    assert losses[-1] < losses[0] - 0.01
    assert all(model.state_dict()[name].equal(weight) for name, weight in frozen.items())
