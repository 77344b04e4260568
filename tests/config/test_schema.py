"""Config: what is refused, with which words, and what is built."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from lockdec.config.building import TRUSTED, Builder
from lockdec.config.schema import checked, plain
from lockdec.errors import ConfigError
from tests.conftest import composed


@dataclass(frozen=True)
class Inner:
    """Something with sizes, to be built by name."""

    size: int
    kind: Literal["a", "b"] = "a"


class Outer:
    """Something that holds others."""

    built = 0

    def __init__(self, inner: Inner, many: list[int], plain: Inner | None = None) -> None:
        type(self).built += 1
        self.inner, self.many = inner, many


class Unsized:
    """Something that is built of nothing, as most callbacks are."""


HERE = "tests.config.test_schema"


def inner(**arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{HERE}.Inner", **arguments}


def test_nested_targets_are_built_and_equal_nodes_give_one_object() -> None:
    builder = Builder()
    node = {"_target_": f"{HERE}.Outer", "inner": inner(size=3), "many": [1, 2]}
    before = Outer.built
    first, second = builder.build(node, "outer"), builder.build(dict(reversed(node.items())), "outer")
    assert first is second
    assert (first.inner, first.many, Outer.built - before) == (Inner(3), [1, 2], 1)


def test_a_class_without_a_constructor_of_its_own_is_built() -> None:
    assert isinstance(Builder().build({"_target_": f"{HERE}.Unsized"}, "x"), Unsized)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (inner(size="3"), "thing.size=3: input should be a valid integer"),
        (inner(size=True), "thing.size=True: input should be a valid integer"),
        (inner(size=1, kind="c"), "thing.kind=c: input should be 'a' or 'b'"),
        (inner(size=1, colour=2), r"thing.colour is not known \(allowed: size, kind\)"),
        (inner(), "thing.size has to be given"),
        ({"_target_": "lockdec.nowhere.Thing"}, "thing._target_=lockdec.nowhere.Thing cannot be imported"),
        ({"_target_": f"{HERE}.Outer", "inner": inner(size=1), "many": ["x"]}, r"thing.many=\['x'\]: input should"),
        ({"_target_": f"{HERE}.Outer", "inner": 3, "many": []}, "thing.inner must name a Inner by _target_"),
    ],
)
def test_a_wrong_node_is_refused_by_its_key(node: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Builder().build(node, "thing")


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "lockdecoy.Thing", "subprocess.run"])
def test_a_config_read_back_builds_only_what_is_trusted(target: str) -> None:
    with pytest.raises(ConfigError, match="is not trusted"):
        Builder(TRUSTED).build({"_target_": target}, "encoder")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cross_attention.d_k=0", "cross_attention.d_k=0"),
        ("decoder.heads=5", r"decoder.heads=5 does not divide d_model=192 \(use 1, 2, 3, 4, 6, 8"),
        ("decoder.norm=middle", "decoder.norm=middle"),
        ("cross_attention.unlock=magic", "cross_attention.unlock=magic: use zero_output"),
        ("fewshot.shots=0", "fewshot.shots=0 must be at least 1"),
        ("finetune.steps=0", "finetune.steps=0 must be at least 1"),
        ("finetune.optimizer.learning_rate=0", "finetune.optimizer.learning_rate=0.0 must be above 0"),
        ("finetune.optimizer.kind=sgd", "finetune.optimizer.kind=sgd is not one of: adamw, muon"),
        ("pretrain.optimizer.betas=[0.9]", "pretrain.optimizer.betas="),
        ("pretrain.optimizer.schedule=square", "pretrain.optimizer.schedule=square is not one of"),
        ("evaluate.split=train", "evaluate.split=train is not one of: val, test"),
        ("evaluate.strategy=guess", "evaluate.strategy=guess: use greedy, beam, nucleus or top_k"),
        ("logger.kinds=[paper]", "logger.kinds=.*paper is not one of"),
        ("logger.mode=on", "logger.mode=on"),
        ("pipeline.order=[pretrain,attack]", "no stage attack"),
    ],
)
def test_an_impossible_value_is_refused_by_its_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(composed(override))


def test_the_defaults_are_possible() -> None:
    checked(composed())
    checked(composed("debug=tiny"))


def test_hydra_copies_its_sources_but_not_the_store_of_schemas_and_leaves_that_as_it_is() -> None:
    before = composed()
    store = ConfigStore.instance()
    assert copy.deepcopy(store) is store  # what made --help slow: a copy for each group
    assert composed("cross_attention.d_k=7", "trainer.threads=3").cross_attention.d_k == 7
    assert composed() == before


def test_the_seed_moves_the_support_set_and_not_the_pretraining() -> None:
    config = composed("seed=7")
    assert (config.fewshot.support_seed, config.pretrain.seed) == (7, 0)
    assert "seed" not in plain(config.stages.pretrain)
    assert OmegaConf.to_yaml(composed("seed=1").stages.pretrain, resolve=True) == OmegaConf.to_yaml(
        config.stages.pretrain, resolve=True
    )


def test_the_surface_of_options_is_this() -> None:
    """No option appears or disappears unseen: change this list on purpose."""
    config = plain(composed())
    top = Counter({name: len(value) if isinstance(value, dict) else 1 for name, value in config.items()})
    assert dict(top) == {
        "seed": 1,
        "name": 1,
        "sweep_name": 1,
        "objective": 1,
        "dry_run": 1,
        "pair": 1,
        "paths": 1,
        "decoder": 17,
        "tokenizer": 1,
        "text": 2,
        "data": 5,
        "encoder": 5,
        "cross_attention": 8,
        "fewshot": 2,
        "pretrain": 4,
        "pretrain_encoder": 1,
        "pretrain_vae": 1,
        "pretrain_vqvae": 1,
        "finetune": 7,
        "translate": 1,
        "evaluate": 14,
        "trainer": 8,
        "callbacks": 0,
        "logger": 5,
        "pipeline": 1,
        "stages": 5,
    }
