"""What makes a process faster without changing what it computes: memory that is kept, products by the faster library,
and on a GPU TF32 for what stays in 32 bits, and compiled layers.
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

# Of glibc's malloc.h, with what keeps memory: nothing is trimmed from the end of the heap, which grows in large steps,
# and nothing is allocated outside it.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_KEEPING = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26, _MMAP_MAX: 0}


def keep_memory() -> None:
    """Have this process keep the memory that it frees, for its next tensors.

    glibc hands every large block back to the system when it is freed, and a new one costs a page fault for each 4 KiB
    that is written, which in a training step on a CPU comes to a tenth of the time. Other C libraries are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in _KEEPING.items():
            mallopt(option, value)


def release_memory() -> None:
    """Give back all that this process does not use: what it has kept of freed memory, and what torch keeps on a GPU."""
    gc.collect()  # a trainer and its module refer to each other
    torch.cuda.empty_cache()  # nothing where no GPU was used
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone
    if trim is not None:
        trim(0)


@cache
def exact_products() -> str:
    """How torch should multiply in 32 bits on this machine, by its own word (`torch.set_float32_matmul_precision`).

    "medium" has oneDNN multiply on a CPU instead of MKL. oneDNN writes its programs for AVX-512 on CPUs of every maker,
    while MKL takes AVX2 on those that are not Intel's, at less than half the speed. It may shorten products to bfloat16
    for that, and does where a CPU has units for these (AMX); whether this one does is tried here.

    Returns:
        "medium" where that keeps 32 bits, else "highest". On a GPU "medium" always shortens.
    """
    if torch.cuda.is_available():
        return "highest"
    draws = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 128, 192, generator=draws), torch.randn(4, 192, 256, generator=draws)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        products = [(a @ b, a.double() @ b.double()), (a[0] @ b[0], a[0].double() @ b[0].double())]
    finally:
        torch.set_float32_matmul_precision(before)
    keeps = all((ours - exact).abs().max() < 1e-5 * exact.abs().max() for ours, exact in products)
    return "medium" if keeps else "highest"


def multiply_exactly() -> None:
    """Have this process multiply in 32 bits by the faster library."""
    torch.set_float32_matmul_precision(exact_products())


@contextmanager
def accelerated(module: nn.Module, trainer: TrainerConfig, backend: str = "inductor") -> Iterator[None]:
    """Train inside this as fast as the trainer's config allows.

    Where it asks for 16 bits, what is left in 32 may take TF32, which is more exact than 16 bits are.
    Stacks of layers are compiled where they stand, so that no name in a state dict changes.

    Args:
        module: holds the stacks.
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
    """Whether a GPU may shorten 32 bits to TF32 inside this; left to itself, torch lets convolutions do so."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else exact_products())
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
