"""Every number and every switch of the stages that learn changes what is learned, and counts in the artifact key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file
from torch import Tensor

from lockdec.config.building import Builder
from lockdec.pipeline.assembling import assemble
from lockdec.pipeline.running import artifacts
from lockdec.stages.stage import Work
from lockdec.tracking.loggers import Tracking
from tests.conftest import TinyRun, composed

OTHERS = {  # where neither twice nor half of the value is a fair trial
    "cross_attention.bias": "true",
    "cross_attention.dropout": "0.3",
    "cross_attention.heads": "1",
    "finetune.chat": None,  # of decoders with a chat template: tests/stages/test_prompting.py
    "finetune.label_smoothing": "0.2",
    "finetune.optimizer.betas": "[0.5,0.99]",
    "finetune.optimizer.clip_norm": "0.001",
    "finetune.optimizer.eps": None,  # of AdamW alone, and there too small to be seen
    "prior.optimizer.betas": "[0.5,0.99]",
    "prior.optimizer.clip_norm": "0.001",
    "prior.optimizer.eps": None,
    "prior.optimizer.weight_decay": "0.5",
    "adapt.optimizer.betas": "[0.5,0.95]",
    "adapt.optimizer.clip_norm": "0.001",
    "adapt.optimizer.eps": None,
    "adapt.repeats": "2",
}
TINY = ("debug=tiny", "experiment=adapt", *(f"{stage}.steps=5" for stage in ("finetune", "prior", "adapt")))
BUILDER = Builder()  # one, which reads the data once
LEARNING = {"finetune": ("finetune", "cross_attention"), "prior": ("prior",), "adapt": ("adapt",)}


def leaves(node: DictConfig, above: str) -> Iterator[str]:
    """The dotted key of every number, switch and list in a section; what refers to another key is that key's."""
    for name in map(str, node):
        key = f"{above}.{name}"
        if OmegaConf.is_interpolation(node, name) or node[name] is None or isinstance(node[name], str):
            continue
        if isinstance(node[name], DictConfig):
            yield from leaves(node[name], key)
        else:
            yield key


def other(config: DictConfig, key: str) -> str | None:
    """Another value of an option."""
    if key in OTHERS:
        return OTHERS[key]
    value = OmegaConf.select(config, key)
    if isinstance(value, bool):
        return str(not value).lower()
    return str(value * 2 or (0.5 if isinstance(value, float) else 1))


def learned(tiny: TinyRun, folder: Path, name: str, *overrides: str) -> tuple[Mapping[str, Tensor], str]:
    """The weights that a stage leaves, and its key; the stages before it are of the tiny run, or made for it."""
    outputs, known = folder.parent, tiny.outputs / "stages"
    paths = (f"paths.outputs={outputs}", f"paths.stores=[{known}]")
    config = composed(*TINY, *paths, "logger.kinds=[csv]", *overrides)
    assembly = assemble(config, BUILDER)
    stage, tracking = assembly.stages[name], Tracking(assembly.config.logger, "effects", folder.name, folder, outputs)
    before = stage.parents(assembly.stages)
    parents = {artifact.stage: artifact for artifact, _ in artifacts(config, assembly, tracking, before)}
    folder.mkdir(exist_ok=True)
    stage.make(Work(name, folder, parents, [], torch.device("cpu")))
    (weights,) = folder.glob("*.safetensors")
    return load_file(weights), assembly.keys[name]


@pytest.mark.parametrize("stage", LEARNING)
def test_every_option_changes_what_is_learned_and_the_key(stage: str, tiny: TinyRun, tmp_path: Path) -> None:
    plain, plain_key = learned(tiny, tmp_path / "plain", stage)
    again, again_key = learned(tiny, tmp_path / "again", stage)
    assert all(weight.equal(plain[name]) for name, weight in again.items())
    assert again_key == plain_key
    config, idle, uncounted = composed(*TINY), list[str](), list[str]()
    tried = [key for section in LEARNING[stage] for key in leaves(config[section], section)]
    assert {"finetune": "cross_attention.dropout", "prior": "prior.steps", "adapt": "adapt.repeats"}[stage] in tried
    for key in tried:
        value = other(config, key)
        if value is not None:
            changed, changed_key = learned(tiny, tmp_path / key, stage, f"{key}={value}")
            same = changed.keys() == plain.keys() and all(weight.equal(plain[name]) for name, weight in changed.items())
            idle += [f"{key}={value}"] if same else []
            uncounted += [f"{key}={value}"] if changed_key == plain_key else []
    assert not idle, "these change nothing"
    assert not uncounted, "these change the result and not the key"
