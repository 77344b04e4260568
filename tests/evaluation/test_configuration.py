"""How captions are generated and judged: as the model's `generate` takes it, refused by its key."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import pytest

from lockdec.config.checking import plain
from lockdec.errors import ConfigError
from lockdec.evaluation.configuration import EvaluateConfig
from lockdec.transformer.models import LockingDecoderModel
from tests.conftest import composed


def config(**changes: Any) -> EvaluateConfig:
    """The defaults of the command line, changed."""
    return replace(EvaluateConfig(**plain(composed().evaluate)), **changes)


def test_every_option_of_generation_is_handed_on_and_no_other() -> None:
    changed = config(strategy="nucleus", top_p=0.5, min_new_tokens=3, seed=4)
    taken = inspect.signature(LockingDecoderModel.generate).parameters
    kinds = {parameter.kind for parameter in taken.values()}
    assert inspect.Parameter.VAR_KEYWORD in kinds or changed.generation.keys() <= taken.keys()
    assert {"split", "batch_size", "seed"}.isdisjoint(changed.generation)
    assert (changed.generation["top_p"], changed.generation["min_new_tokens"]) == (0.5, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "train"}, "^evaluate.split=train is not one of: val, test"),
        ({"batch_size": 0}, "^evaluate.batch_size=0 must be at least 1"),
        ({"top_p": 0.0}, "^evaluate.top_p=0.0: use a number above 0"),
        ({"beams": 0}, "^evaluate.beams=0: use a whole number"),
        ({"beams": 1001}, "^evaluate.beams=1001: at most 1000"),
        ({"candidates": 10**9}, "^evaluate.candidates=1000000000: at most 1000"),
    ],
)
def test_what_cannot_work_is_refused_by_the_key_of_its_section(changes: dict[str, Any], message: str) -> None:
    config().check()
    with pytest.raises(ConfigError, match=message):
        config(**changes).check()
