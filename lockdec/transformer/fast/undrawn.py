"""Modules without initial weights, for those that are about to get others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@contextmanager
def undrawn() -> Iterator[None]:
    """Modules that are made within have weights without values or memory, on the meta device; nothing is drawn."""
    with torch.device("meta"), _WithoutInitialisation():
        yield


class _WithoutInitialisation(TorchFunctionMode):
    """Skips `torch.nn.init`, which on the meta device takes a second to import torch's compiler, for nothing."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else options["tensor"]
        return func(*args, **options)
