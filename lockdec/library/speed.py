"""The speed of the commands, for a script that imports lockdec."""

from __future__ import annotations

from lockdec.runtime.acceleration import keep_memory, multiply_exactly


def accelerate() -> None:
    """Give this process the settings that the commands of lockdec run with; nothing else that is imported sets them.

    They concern everything that the process computes, so call it once, at the start of a script of your own: freed
    memory is kept for the next tensors, and products in 32 bits use the library that is faster on this machine without
    losing precision.
    """
    keep_memory()
    multiply_exactly()
