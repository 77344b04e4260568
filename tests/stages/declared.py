"""The stages that lockdec has, found by their declarations."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

from lockdec import stages
from lockdec.stages.stage import Stage


def _declared() -> Iterator[type[Stage]]:
    for module in pkgutil.iter_modules(stages.__path__, f"{stages.__name__}."):
        for found in vars(importlib.import_module(module.name)).values():
            own = inspect.isclass(found) and found.__module__ == module.name
            if own and issubclass(found, Stage) and not inspect.isabstract(found):
                yield found


STAGES = tuple(_declared())
