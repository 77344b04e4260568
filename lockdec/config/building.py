"""The one place that builds the objects that a config names by `_target_`."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import os
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from lockdec.errors import ConfigError, said
from lockdec.store import canonical_json

TRUSTED = ("lockdec.",)
SCALARS = (int, float, str, bool)


class Builder:
    """Builds the objects that config nodes name by `_target_`. Equal nodes give the same object.

    Args:
        trusted: the module prefixes a target may come from; None trusts all of them, which is right for what the user
            typed and wrong for a config read back from a run or an artifact. With prefixes, a target has to be a class
            that a module below one of them defines, of the kind that belongs in its place: a function, a module or
            what a trusted module has only imported is refused.
    """

    def __init__(self, trusted: Sequence[str] | None = None) -> None:
        self.trusted = trusted
        self._built: dict[str, Any] = {}

    def keeping(self, *kinds: type) -> Builder:
        """A builder that has built, of what this one has, only the objects of these kinds, which nothing changes."""
        kept = Builder(self.trusted)
        kept._built = {identity: built for identity, built in self._built.items() if isinstance(built, kinds)}
        return kept

    def forget(self, *objects: Any) -> None:
        """Build these anew wherever they are named next, since whoever has them now changes them."""
        self._built = {name: built for name, built in self._built.items() if not any(built is one for one in objects)}

    def build(self, node: Any, key: str, hint: Any = Any) -> Any:
        """The object, list or value a plain config node stands for.

        Args:
            node: plain containers.
            key: where it stands in the config, for errors.
            hint: the type it has to have.

        Raises:
            ConfigError: an unknown key, a wrong type, a target that is not trusted or does not exist.
        """
        if isinstance(node, Mapping) and "_target_" in node:
            identity = canonical_json(node)
            if identity not in self._built:
                arguments = {name: value for name, value in node.items() if name != "_target_"}
                self._built[identity] = self._call(self.locate(node["_target_"], key, hint), arguments, key)
            return _checked(self._built[identity], hint, key)
        if isinstance(node, Mapping):
            if (kind := _dataclass_of(hint)) is not None:
                return self._call(kind, node, key)
            node = {name: self.build(value, f"{key}.{name}", _inner(hint, value)) for name, value in node.items()}
        elif isinstance(node, list):
            node = [self.build(value, f"{key}.{index}", _inner(hint, value)) for index, value in enumerate(node)]
        return _checked(node, hint, key)

    def locate(self, path: Any, key: str, hint: Any) -> Any:
        """The class that `key._target_=path` names.

        Raises:
            ConfigError: it is not trusted or does not exist.
        """
        if not isinstance(path, str):
            raise ConfigError(f"{key}._target_={path} is not the dotted path of a class")
        if self.trusted is not None and not path.startswith(tuple(self.trusted)):
            raise ConfigError(f"{key}._target_={path} is not trusted (allowed: {', '.join(self.trusted)}; "
                              f"if you trust it: --trust {path.partition('.')[0]}.)")  # fmt: skip
        module, _, name = path.rpartition(".")
        try:
            if self.trusted is None:
                _find_in_current_folder(module)
            target = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, TypeError, ValueError) as error:  # TypeError: it begins with a dot
            raise ConfigError(f"{key}._target_={path} cannot be imported ({error})") from error
        if not callable(target):
            raise ConfigError(f"{key}._target_={path} is not a class")
        if self.trusted is not None:
            kinds = tuple(kind for kind in (hint, *typing.get_args(hint)) if _is_plain_class(kind))
            if not inspect.isclass(target) or target.__module__ != module or not issubclass(target, kinds):
                wanted = " or ".join(kind.__name__ for kind in kinds) or "nothing that is built"
                raise ConfigError(f"{key}._target_={path} is not trusted: {wanted} belongs there")
        return target

    def _call(self, target: Any, arguments: Mapping[str, Any], key: str) -> Any:
        function = target.__init__ if inspect.isclass(target) else target
        parameters = {
            name: parameter
            for name, parameter in inspect.signature(function).parameters.items()
            if name != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        }
        hints = typing.get_type_hints(target if dataclasses.is_dataclass(target) else function)
        if unknown := [name for name in arguments if name not in parameters]:
            raise ConfigError(f"{key}.{unknown[0]} is not known (allowed: {', '.join(parameters)})")
        required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
        if missing := [name for name in required if name not in arguments]:
            raise ConfigError(f"{key}.{missing[0]} has to be given")
        built = {name: self.build(value, f"{key}.{name}", hints.get(name, Any)) for name, value in arguments.items()}
        try:
            return target(**built)
        except OSError as error:  # a folder that may not be entered, a name that is too long
            raise ConfigError(f"{key}: {said(error)}") from error
        except Exception as error:
            if not _refuses_value(target, error):
                raise
            raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error


def _refuses_value(target: Any, error: Exception) -> bool:
    """Whether a class of another package has refused an argument: as Python does, or as Lightning does."""
    theirs = not str(getattr(target, "__module__", "")).startswith(TRUSTED)
    return theirs and (isinstance(error, ValueError) or type(error).__name__ == "MisconfigurationException")


def _find_in_current_folder(module: str) -> None:
    """Let a user's own module be imported from the current folder, where it is found nowhere else."""
    if os.getcwd() not in sys.path and importlib.util.find_spec(module.partition(".")[0]) is None:
        sys.path.append(os.getcwd())


def _dataclass_of(hint: Any) -> Any:
    """The dataclass that a node without a target stands for; None where it stands for a dict."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = typing.get_args(hint) if union else (hint,)
    return next((kind for kind in kinds if dataclasses.is_dataclass(kind) and not inspect.isabstract(kind)), None)


def _inner(hint: Any, value: Any) -> Any:
    """What a node inside a dict or a list has to be, where the type of that says it."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    for holder in typing.get_args(hint) if union else (hint,):
        origin, inner = typing.get_origin(holder), typing.get_args(holder)
        if isinstance(value, Mapping) and inspect.isclass(origin) and issubclass(origin, Mapping | Sequence):
            return inner[0] if origin is tuple else inner[-1]
    return Any


def _is_plain_class(kind: Any) -> bool:
    return inspect.isclass(kind) and kind is not Any and not isinstance(kind, types.GenericAlias)


def _checked(value: Any, hint: Any, key: str) -> Any:
    if hint is Any or (inspect.isclass(hint) and hint not in SCALARS and isinstance(value, hint)):
        return value
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    if inspect.isclass(hint) and hint not in SCALARS:
        raise ConfigError(f"{key} must name a {hint.__name__} by _target_, not {type(value).__name__}")
    try:
        kind = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True, strict=True))
        return kind.validate_python(value)
    except ValidationError as error:
        problems = error.errors()
        if isinstance(value, Mapping):  # only what is wrong in it
            for part in problems[0]["loc"]:
                if part in value:
                    key, value = f"{key}.{part}", value[part]
                    break
        reasons = " or ".join(dict.fromkeys(problem["msg"].lower() for problem in problems))
        plain = value is None or isinstance(value, (*SCALARS, list, Mapping))
        shown = "null" if value is None else value if plain else type(value).__name__
        raise ConfigError(f"{key}={shown}: {reasons}") from error
