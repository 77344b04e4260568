"""Makes a process faster without changing its results beyond rounding: reused memory, the faster library for matrix
products and, on a GPU, TF32 and compiled layers.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn

from lockdec.config.schema import TrainerConfig
from lockdec.transformer.layers import Stack

# From malloc.h of glibc. To keep memory, nothing is trimmed from the end of the heap, which grows in large steps, and
# nothing is allocated outside it.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_KEEPING = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26, _MMAP_MAX: 0}


def keep_memory() -> None:
    """Keep freed memory in this process for its next tensors.

    glibc returns every large block to the system when it is freed, and a new block costs a page fault for every 4 KiB
    that are written: a tenth of the time of a training step on a CPU. Nothing is done with other C libraries.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in _KEEPING.items():
            mallopt(option, value)


def release_memory() -> None:
    """Return all unused memory to the system, including what torch has cached on a GPU."""
    gc.collect()  # a trainer and its module refer to each other
    torch.cuda.empty_cache()  # does nothing if no GPU was used
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only in glibc
    if trim is not None:
        trim(0)


@cache
def exact_products() -> str:
    """The argument of `torch.set_float32_matmul_precision` that is fastest on this machine without losing precision.

    With "medium", a CPU multiplies by oneDNN instead of MKL. oneDNN uses AVX-512 on CPUs of every vendor, while MKL
    only uses AVX2 on those not made by Intel, at less than half the speed. But "medium" also permits bfloat16
    products, which oneDNN computes on CPUs with units for them (AMX). Whether this CPU does
    so is tested here.

    Returns:
        "medium" if products keep 32 bits, else "highest". On a GPU, "medium" never keeps them.
    """
    if torch.cuda.is_available():
        return "highest"
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 128, 192, generator=rng), torch.randn(4, 192, 256, generator=rng)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        products = [(a @ b, a.double() @ b.double()), (a[0] @ b[0], a[0].double() @ b[0].double())]
    finally:
        torch.set_float32_matmul_precision(before)
    keeps = all((ours - exact).abs().max() < 1e-5 * exact.abs().max() for ours, exact in products)
    return "medium" if keeps else "highest"


def multiply_exactly() -> None:
    """Use the faster library for products in 32 bits in this process."""
    torch.set_float32_matmul_precision(exact_products())


@contextmanager
def accelerated(module: nn.Module, trainer: TrainerConfig, backend: str = "inductor") -> Iterator[None]:
    """Train within this context as fast as the config of the trainer allows.

    With 16-bit precision, operations that stay in 32 bits may use TF32, which is more precise than 16 bits.
    Stacks of layers are compiled in place, so that no name in a state dict changes.

    Args:
        module: contains the stacks.
        trainer: decides about compilation and precision.
        backend: of torch.compile.
    """
    if trainer.compile:
        for stack in module.modules():
            if isinstance(stack, Stack):
                stack.compile(dynamic=True, backend=backend)  # batches differ in length
    with tf32("16" in trainer.precision):
        yield


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 on a GPU within this context; by default, torch allows it for convolutions."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else exact_products())
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
