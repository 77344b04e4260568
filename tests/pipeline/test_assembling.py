"""What a run is made of is built and checked, with its keys, before any of it works."""

from __future__ import annotations

import random
from itertools import cycle
from typing import Any

import pytest
from lightning.pytorch.callbacks import Timer

from lockdec.config.building import Builder
from lockdec.errors import ConfigError
from lockdec.pipeline.assembling import assemble, checked_subtrees
from tests.conftest import composed
from tests.pipeline import odd_values
from tests.pipeline.odd_values import VALUES


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+finetune.stpes=3", r"^finetune\.stpes: no such key \(allowed: .*\bsteps\b"),
        ("+finetune.optimizer.rate=3", r"^finetune\.optimizer\.rate: no such key \(allowed: learning_rate, "),
        ("finetune.steps=many", r"^finetune\.steps: Value 'many' of type 'str' could not be converted to Integer$"),
        ("pretrain.optimizer.betas=[a,b]", r"^pretrain\.optimizer\.betas\[0\]: Value 'a' of type 'str' could not"),
        ("pretrain=null", "^pretrain=None: the stage pretrain reads this section; give it keys and values$"),
        ("+fintune.steps=3", r"^fintune: no such key, nor a stage of this name \(allowed: .*\bfinetune\b"),
        ("stages.unlock._target_=pathlib.Path", r"^stages\.unlock\._target_=pathlib\.Path is not a Stage$"),
        (
            "stages.unlock._target_=lockdec.stages.attach.Attach",
            r"^stages\.unlock\._target_=lockdec\.stages\.attach\.Attach is the stage attach: configure it as",
        ),
    ],
)
def test_a_section_is_checked_before_any_work(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked_subtrees(composed(override), Builder())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pretrain.batch_tokens=16"], r"^pretrain\.batch_tokens=16: at least decoder\.max_len=\d+$"),
        (
            ["encoder=mlm", "data=translation", "pretrain_encoder.batch_tokens=16"],
            r"^pretrain_encoder\.batch_tokens=16: at least pretrain_encoder\.model\.max_len=\d+$",
        ),
        (
            ["encoder=mlm", "data=translation", "pretrain_encoder.vocab_size=100"],
            r"^pretrain_encoder\.vocab_size=100 must be from 259 \(256 bytes and 3 special tokens\) to 1000000$",
        ),
    ],
)
def test_stages_are_checked_before_any_work(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        assemble(composed("debug=tiny", *overrides), Builder())


def test_odd_values_are_refused_as_such_or_taken() -> None:
    """Thirty of those that `python -m tests.pipeline.odd_values` tries, of each value some."""
    trial = odd_values.Trial(["debug=tiny"])
    every = odd_values.keys(trial.config)
    places = random.Random(0).sample(every, 30)
    found = {
        f"{key}={value}": trial.outcome(f"{key}={value}") for key, value in zip(places, cycle(VALUES), strict=False)
    }
    assert len(every) > 100
    assert {case: outcome for case, outcome in found.items() if outcome not in ("refused", "accepted")} == {}
    assert "refused" in found.values()


def test_each_stage_has_callbacks_of_its_own_and_all_have_the_same_data() -> None:
    timed = "+callbacks.mine._target_=lightning.pytorch.callbacks.Timer"
    stages: Any = assemble(composed("debug=tiny", timed), Builder()).stages
    first, second = stages["pretrain"], stages["finetune"]
    assert (type(first.callbacks["mine"]), type(second.callbacks["mine"])) == (Timer, Timer)
    assert first.callbacks["mine"] is not second.callbacks["mine"]
    assert first.data is second.data


def test_a_whole_number_for_a_float_is_that_float() -> None:
    _, subtrees = checked_subtrees(composed("finetune.state_noise=1"), Builder())
    noise = subtrees["finetune"]["fit"]["state_noise"]
    assert (noise, type(noise)) == (1.0, float)


def test_the_defaults_are_possible() -> None:
    checked_subtrees(composed(), Builder())
    checked_subtrees(composed("debug=tiny"), Builder())


def test_equal_parts_of_two_stages_are_built_once_and_again_for_the_next_cell() -> None:
    """Such as the data, which every stage names by itself and none should read again."""
    builder = Builder()
    first, second = (assemble(composed("debug=tiny", f"cross_attention.d_k={d_k}"), builder) for d_k in (1, 2))
    data = {id(getattr(stage, "data", None)) for made in (first, second) for stage in made.stages.values()}
    assert len(data - {id(None)}) == 1
    other = [name for name in first.keys if first.keys[name] != second.keys[name]]
    assert other == ["unlock", "finetune", "evaluate"]
    assert first.subtrees["finetune"]["parents"] == ["pretrain", "attach", "unlock"]


def test_a_stage_whose_parent_comes_after_it_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^pipeline\.order=.*: unlock needs attach before it"):
        assemble(composed("debug=tiny", "pipeline.order=[pretrain,unlock,attach]"), Builder())
