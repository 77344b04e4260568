"""Unlocking: new cross-attention from the seed alone, which changes nothing yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lockdec.evaluation.stored import CROSS_ATTENTION_WEIGHTS
from lockdec.pipeline.assembling import Assembly
from lockdec.stages.stage import Work
from lockdec.stages.unlock import Unlock
from lockdec.store import Artifact


def unlocked(assembled: Assembly, made: Mapping[str, Artifact], folder: Path, **changes: Any) -> dict[str, Any]:
    """The metrics of the tiny run's unlock stage, made anew with some changes."""
    stage = assembled.stages["unlock"]
    assert isinstance(stage, Unlock)
    folder.mkdir()
    sizes = {name: changes.pop(name) for name in list(changes) if name != "seed"}
    stage = replace(stage, cross_attention=replace(stage.cross_attention, **sizes), **changes)
    return stage.make(Work("unlock", folder, made, [], torch.device("cpu")))


@pytest.mark.parametrize(("unlock", "changes_nothing"), [("zero_output", True), ("tanh_gate", True), ("plain", False)])
def test_unlocking_changes_no_logit_but_where_it_is_plain(
    unlock: str, changes_nothing: bool, assembled: Assembly, made: Mapping[str, Artifact], tmp_path: Path
) -> None:
    metrics = unlocked(assembled, made, tmp_path / "a", unlock=unlock)
    assert (metrics["unlock"]["max_abs_logit_delta"] == 0.0) == changes_nothing


def test_the_weights_follow_from_the_seed(assembled: Assembly, made: Mapping[str, Artifact], tmp_path: Path) -> None:
    for name, seed in (("same", 0), ("again", 0), ("other", 1)):
        torch.rand(3)  # whatever was drawn before
        unlocked(assembled, made, tmp_path / name, seed=seed)
    same, again, other = (load_file(tmp_path / name / CROSS_ATTENTION_WEIGHTS) for name in ("same", "again", "other"))
    assert all(weight.equal(again[name]) for name, weight in same.items())
    assert not all(weight.equal(other[name]) for name, weight in same.items())
    assert all(
        weight.equal(load_file(made["unlock"].path(CROSS_ATTENTION_WEIGHTS))[name]) for name, weight in same.items()
    )


def test_the_parameters_are_counted_apart(made: Mapping[str, Artifact]) -> None:
    metrics = made["unlock"].metrics
    saved = sum(weight.numel() for weight in load_file(made["unlock"].path(CROSS_ATTENTION_WEIGHTS)).values())
    decoder = sum(weight.numel() for weight in load_file(made["pretrain"].path("decoder.safetensors")).values())
    assert metrics["cross_attention"]["parameters"] == metrics["parameters"]["trainable"] == saved
    assert metrics["parameters"]["per_module"] == {"decoder": decoder, "cross_attention": saved}
    assert metrics["parameters"]["total"] == decoder + saved
