"""Artifact keys: everything that a result follows from is in them, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch

from lockdec.config.building import Builder
from lockdec.encoders.contract import Encoder
from lockdec.pipeline.assembling import Assembly, assemble
from lockdec.pipeline.keys import same_results, stage_keys, without
from lockdec.stages.attach import Attach
from lockdec.stages.stage import Stage, Work
from tests.conftest import composed


@dataclass(frozen=True, kw_only=True)
class First(Stage):
    """A stage with one option that counts and one that does not."""

    name: ClassVar[str] = "first"
    version: ClassVar[int] = 1
    neutral: ClassVar[tuple[str, ...]] = ("threads",)
    steps: int = 1
    threads: int = 1
    content: str = "text"

    def fingerprints(self) -> dict[str, str]:
        return {"data": self.content}

    def make(self, work: Work) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, kw_only=True)
class Second(First):
    """A stage that reads the first."""

    name: ClassVar[str] = "second"
    reads: ClassVar[tuple[type[Stage], ...]] = (First,)


class Newer(First):
    """The first stage with other code."""

    version: ClassVar[int] = 2


def keys(first: First, steps: int = 1) -> tuple[str, str]:
    """The keys of `first` and of a second stage that reads it."""
    stages = {"first": first, "second": Second(steps=steps)}
    subtrees = {name: {"steps": stage.steps, "threads": stage.threads} for name, stage in stages.items()}
    found = stage_keys(stages, subtrees)
    return found["first"], found["second"]


@pytest.mark.parametrize("first", [First(steps=2), First(content="other text"), Newer()])
def test_config_content_and_version_count_also_for_the_stages_that_read_it(first: First) -> None:
    assert not set(keys(first)) & set(keys(First()))


def test_a_stage_does_not_count_for_the_stages_before_it() -> None:
    assert keys(First(), steps=2)[0] == keys(First())[0]
    assert keys(First(), steps=2)[1] != keys(First())[1]


def test_a_neutral_key_counts_for_no_stage() -> None:
    assert keys(First(threads=8)) == keys(First())


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    return assemble(composed("debug=tiny", f"paths.outputs={tmp_path_factory.mktemp('keys')}"), Builder())


def test_one_weight_of_the_encoder_counts_from_attach_on(assembly: Assembly) -> None:
    attach = assembly.stages["attach"]
    assert isinstance(attach, Attach)
    assert isinstance(attach.encoder, Encoder)
    weight = next(attach.encoder.parameters())
    first, before = (0,) * weight.ndim, weight.detach().clone()
    with torch.no_grad():
        weight[first] += 1
        stages = {**assembly.stages, "attach": replace(attach)}  # as it is built in another process
        other = stage_keys(stages, assembly.subtrees)
        weight.copy_(before)
    changed = [name for name, key in assembly.keys.items() if other[name] != key]
    assert changed == ["attach", "unlock", "finetune", "evaluate"]


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("seed=1", ["unlock", "finetune", "prior", "evaluate"]),
        ("data.split_seed=1", ["pretrain", "attach", "unlock", "finetune", "prior", "evaluate"]),
        ("stages.attach.normalise=whiten", ["attach", "unlock", "finetune", "evaluate"]),
        ("cross_attention.unlock=rezero", ["unlock", "finetune", "evaluate"]),
        ("finetune.batch_size=3", ["finetune", "evaluate"]),
        ("finetune.optimizer.schedule=constant", ["finetune", "evaluate"]),
        ("trainer.precision=bf16-mixed", ["pretrain", "unlock", "finetune", "prior", "evaluate"]),
        ("prior.steps=3", ["prior", "evaluate"]),
        ("cross_attention.layers=last_1", ["unlock", "finetune", "prior", "evaluate"]),
        ("cross_attention.d_k=1", ["unlock", "finetune", "evaluate"]),
        ("evaluate.seed=1", ["evaluate"]),
        ("trainer.threads=1", []),
        ("trainer.checkpoint_seconds=1", []),
        ("logger=none", []),
    ],
)
def test_a_choice_counts_from_the_first_stage_that_it_can_change(
    override: str, changed: list[str], assembly: Assembly
) -> None:
    outputs = f"paths.outputs={assembly.config.paths.outputs}"
    other = assemble(composed("debug=tiny", override, outputs), Builder()).keys
    assert [name for name, key in assembly.keys.items() if other[name] != key] == changed


def test_results_are_the_same_where_only_neutral_keys_differ() -> None:
    base = composed("debug=tiny")
    assert same_results(base, composed("debug=tiny", "trainer.threads=1", "stages.attach.batch_size=3", "logger=none"))
    assert not same_results(base, composed("debug=tiny", "finetune.steps=3"))


@pytest.mark.parametrize(
    ("overrides", "other"),
    [
        (("decoder=gpt2", "decoder.path=a"), "decoder.path=b"),
        (("data=named_drawings", "encoder=drawing_and_name", "bridge=sum", "bridge.plugs=[a,b]"), "bridge.plugs=[a,c]"),
        (("pipeline.order=[pretrain]",), "data.split=random"),
        (("pipeline.order=[pretrain,prior]",), "fewshot.shots=4"),
    ],
)
def test_what_only_a_fingerprint_knows_may_give_other_results(overrides: tuple[str, ...], other: str) -> None:
    one = composed("debug=tiny", *overrides)
    assert same_results(one, composed("debug=tiny", *overrides))
    assert not same_results(one, composed("debug=tiny", *overrides, other))


def test_without_leaves_out_exactly_what_is_listed() -> None:
    node = {"batch_size": 1, "trainer": {"devices": 2, "precision": 32}, "fit": {"batch_size": 3}}
    assert without(node, ["batch_size", "trainer.devices"]) == {
        "trainer": {"precision": 32},
        "fit": {"batch_size": 3},
    }
