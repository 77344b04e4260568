"""What a config names by _target_ is built once, checked against its types, and refused by its key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from lockdec.config.building import TRUSTED, Builder
from lockdec.errors import ConfigError


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
        self.inner, self.many, self.plain = inner, many, plain


class Unsized:
    """Something that is built of nothing, as most callbacks are."""


class Patient:
    """Something that takes some values only."""

    def __init__(self, patience: int) -> None:
        if patience < 1:
            raise ValueError(f"patience is\n{10 // patience}")


HERE = "tests.config.test_building"


def test_the_next_cell_keeps_the_objects_of_some_kinds() -> None:
    builder = Builder()
    outer = builder.build({"_target_": f"{HERE}.Outer", "inner": inner(size=1), "many": []}, "outer")
    kept = builder.keeping(Inner)
    assert kept.build(inner(size=1), "inner") is outer.inner
    assert kept.build({"_target_": f"{HERE}.Outer", "inner": inner(size=1), "many": []}, "outer") is not outer


def inner(**arguments: Any) -> dict[str, Any]:
    return {"_target_": f"{HERE}.Inner", **arguments}


def test_nested_targets_are_built_and_equal_nodes_give_one_object() -> None:
    builder = Builder()
    node = {"_target_": f"{HERE}.Outer", "inner": inner(size=3), "many": [1, 2]}
    before = Outer.built
    first, second = builder.build(node, "outer"), builder.build(dict(reversed(node.items())), "outer")
    assert first is second
    assert (first.inner, first.many, Outer.built - before) == (Inner(3), [1, 2], 1)


def several(inners: dict[str, Inner], size: int | None = None) -> tuple[dict[str, Inner], int | None]:
    """Something that holds others by name."""
    return inners, size


@pytest.mark.parametrize("wrong", [-1, 1.5, "a", [1], {"a": 1}, None, True])
def test_values_inside_a_dict_have_the_type_of_its_values(wrong: object) -> None:
    node = {"_target_": f"{HERE}.several", "inners": {"first": inner(size=3)}}
    assert Builder().build(node, "node") == ({"first": Inner(3)}, None)
    node["inners"]["second"] = wrong  # type: ignore[index]
    with pytest.raises(ConfigError, match=r"^node\.inners\.second"):
        Builder().build(node, "node")


def test_a_dict_is_refused_where_a_number_belongs() -> None:
    with pytest.raises(ConfigError, match=r"^node\.size={'a': 1}: input should be a valid integer"):
        Builder().build({"_target_": f"{HERE}.several", "inners": {}, "size": {"a": 1}}, "node")


def test_a_target_that_begins_with_dots_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^node\._target_=\.\./x cannot be imported"):
        Builder().build({"_target_": "../x"}, "node")


def test_a_node_without_a_target_is_the_dataclass_that_belongs_there() -> None:
    node = {"_target_": f"{HERE}.Outer", "inner": {"size": 3}, "many": [], "plain": {"size": 4}}
    outer = Builder().build(node, "outer")
    assert (outer.inner, outer.plain) == (Inner(3), Inner(4))


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
        ({"_target_": f"{HERE}.several", "inners": inner(size=1)}, "^thing.inners=Inner: input should be a valid dict"),
        ({"_target_": f"{HERE}.Outer", "inner": 3, "many": []}, "thing.inner must name a Inner by _target_"),
    ],
)
def test_a_wrong_node_is_refused_by_its_key(node: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Builder().build(node, "thing")


def test_a_value_that_a_class_of_another_package_refuses_is_refused_by_its_key_and_a_fault_of_it_is_not() -> None:
    timer = {"_target_": "lightning.pytorch.callbacks.Timer", "duration": "long"}
    with pytest.raises(ConfigError, match=r"^callbacks\.mine: `Timer\(duration='long'\)` is not a valid duration"):
        Builder().build(timer, "callbacks.mine")
    with pytest.raises(ConfigError, match=r"^callbacks\.mine: patience is -10$"):
        Builder().build({"_target_": f"{HERE}.Patient", "patience": -1}, "callbacks.mine")
    with pytest.raises(ZeroDivisionError):
        Builder().build({"_target_": f"{HERE}.Patient", "patience": 0}, "callbacks.mine")


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "lockdecoy.Thing", "subprocess.run"])
def test_a_config_read_back_builds_only_what_is_trusted(target: str) -> None:
    with pytest.raises(ConfigError, match="is not trusted"):
        Builder(TRUSTED).build({"_target_": target}, "encoder")
