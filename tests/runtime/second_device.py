"""A second device on a machine that has only one: its tensors hold their numbers on the CPU, but are not on it.

Everything is computed for real, so what depends on values works as it does on a GPU and gives the CPU's numbers; but,
as on a GPU, an operation on tensors of both devices raises, and numpy sees the CPU's tensors alone. A CPU's number of
no dimension may take part in anything. More strictly than on a GPU, an index has to be on the device, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

SECOND = torch.device("meta")  # the one kind beside the CPU that every torch has
_ATEN = torch.ops.aten
_COPIES = (_ATEN._to_copy.default, _ATEN.copy_.default, _ATEN.to.other)
_PRODUCTS = {
    *(_ATEN.mm.default, _ATEN.addmm.default, _ATEN.bmm.default, _ATEN.convolution.default),
    *(_ATEN.linear.default, _ATEN.matmul.default, _ATEN.conv2d.default),  # seen as such in inference mode
}


@contextmanager
def second_device() -> Iterator[Devices]:
    """Have the second device while this lasts."""
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a parameter cannot change its class
    try:
        with Devices() as devices:
            yield devices
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)


class There(torch.Tensor):
    """A tensor on the second device.

    Attributes:
        held: its numbers.
    """

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> There:
        make: Any = torch.Tensor._make_wrapper_subclass
        layout = held.size(), held.stride(), held.storage_offset()
        there: There = make(cls, *layout, dtype=held.dtype, device=SECOND)
        there.held = held
        return there

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(operation, args, kwargs or {})

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("numpy sees the CPU's tensors alone")


class Devices(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation.

    Attributes:
        products: how many products of matrices and convolutions each kind of device has computed.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products = Counter[str]()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        done = _run(operation, args, kwargs or {})
        if operation in _PRODUCTS:
            self.products[done.device.type] += 1
        return done


def _run(operation: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    values = tree_flatten((args, kwargs))[0]
    there = {id(value.held): value for value in values if isinstance(value, There)}
    here = [value for value in values if isinstance(value, torch.Tensor) and not isinstance(value, There)]
    if there and any(value.dim() for value in here) and operation not in _COPIES:
        raise RuntimeError(f"{operation}: all tensors have to be on one device")
    wanted = [value for value in values if isinstance(value, torch.device)]
    goes_there = SECOND in wanted if wanted else bool(there)
    args, kwargs = tree_map_only(torch.device, lambda _: torch.device("cpu"), (args, kwargs))
    args, kwargs = tree_map_only(There, lambda value: value.held, (args, kwargs))
    # Below autograd, which has seen to it already; its inference mode would not let views of older tensors be made.
    with torch.inference_mode(False), torch.no_grad():
        done = operation(*args, **kwargs)
        if not goes_there:
            return done
        # What was changed in place stays the tensor that it was.
        return tree_map_only(torch.Tensor, lambda v: there[id(v)] if id(v) in there else There(v), done)


def numbers(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers among a stage's metrics by their dotted names, without how long it took."""
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if name == "seconds":
            continue
        if isinstance(value, Mapping):
            flat |= numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            flat[f"{prefix}{name}"] = value
    return flat
