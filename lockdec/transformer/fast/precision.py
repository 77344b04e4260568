"""Which precision a frozen decoder computes in."""

from __future__ import annotations

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def dtype_of(asked: str, stored: torch.dtype, device: torch.device) -> torch.dtype:
    """The type of a decoder's weights in memory.

    Args:
        asked: float32, bfloat16, or auto: bfloat16 where the weights are stored so and the device has units for its
            products, and float32 everywhere else.
        stored: the type of the weights on disk.
    """
    if asked in DTYPES:
        return DTYPES[asked]
    return stored if stored == torch.bfloat16 and multiplies_bfloat16(device) else torch.float32


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in units of its own, and so faster than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without such units, torch converts to float32 and back around each product.
    units = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device.type == "cpu" and bool(units)
