"""One call gives a script the speed of the commands, and importing lockdec changes no setting of the process."""

from __future__ import annotations

import torch

import lockdec
from lockdec.runtime.acceleration import exact_products


def test_only_the_call_changes_settings() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert lockdec.load.__module__ == "lockdec.library.loading"
        assert torch.get_float32_matmul_precision() == "high"
        lockdec.accelerate()
        assert torch.get_float32_matmul_precision() == exact_products()
    finally:
        torch.set_float32_matmul_precision(before)
