"""What all stages that train share: which of their keys count, how their settings are refused, what they return."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pytest
import torch

from lockdec.errors import ConfigError
from lockdec.pipeline.keys import without
from lockdec.stages.stage import Stage, Work
from lockdec.stages.training_stage import TrainingConfig, TrainingStage
from tests.stages.declared import STAGES
from tests.training.test_fit import CPU, Line, Steps, adamw


@pytest.mark.parametrize("stage", [stage for stage in STAGES if issubclass(stage, TrainingStage)])
def test_where_a_stage_trains_is_neutral_and_how_long_is_not(stage: type[Stage]) -> None:
    subtree = {"trainer": {"devices": 2, "threads": 3, "compile": True, "precision": "32"}, "fit": {"steps": 4}}
    assert without(subtree, stage.neutral) == {
        "trainer": {"compile": True, "precision": "32"},
        "fit": {"steps": 4},
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, r"^there\.steps=0 must be at least 1$"),
        ({"size": 2}, r"^there\.size=2 must be at least 3$"),
        ({"optimizer": adamw(learning_rate=0.0)}, r"^there\.optimizer\.learning_rate=0\.0 must be above 0$"),
    ],
)
def test_settings_of_a_training_are_refused_by_the_key_of_its_section(changes: dict[str, Any], message: str) -> None:
    @dataclass
    class Sized(TrainingConfig):
        size: int = 3

    defaults: dict[str, Any] = {"steps": 1, "optimizer": adamw()}
    Sized(**defaults).check_training("there", size=3)
    with pytest.raises(ConfigError, match=message):
        Sized(**(defaults | changes)).check_training("there", size=3)


def test_a_callback_that_is_none_is_refused_before_any_work() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Training(TrainingStage):
        name: ClassVar[str] = "stage"
        version: ClassVar[int] = 1

        def make(self, work: Work) -> dict[str, Any]:
            return {}

    fit = TrainingConfig(steps=20, optimizer=adamw())
    Training(fit=fit, trainer=CPU, callbacks={"mine": L.Callback()})
    with pytest.raises(ConfigError, match=r"^callbacks\.mine must name a Callback of Lightning by _target_, not dict$"):
        Training(fit=fit, trainer=CPU, callbacks={"mine": {"patience": 3}})


def test_what_was_logged_last_is_returned_without_the_name_of_the_stage(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Training(TrainingStage):
        name: ClassVar[str] = "stage"
        version: ClassVar[int] = 1

        def make(self, work: Work) -> dict[str, Any]:
            return self.train(Line(), Steps(), work, seed=3)

    fit = TrainingConfig(steps=20, optimizer=adamw())
    logged = Training(fit=fit, trainer=CPU, callbacks={}).make(Work("stage", tmp_path, {}, [], torch.device("cpu")))
    assert logged.keys() == {"loss"}
    assert 0 <= logged["loss"] < 1
