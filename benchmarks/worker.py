"""The process of one subject: python -m benchmarks.worker SUITE SUBJECT THREADS, started by `benchmarks.side_by_side`.

It reads requests and writes answers as lines of JSON: {"steps": n} does n steps and returns their seconds;
{"memory": true} asks for the peak so far.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import torch

from benchmarks.side_by_side import PEAK, PEERS, Subject, load
from lockdec.runtime import acceleration

SIDE = 2048  # of the square matrices whose product is the peak
_STATUS = Path("/proc/self/status")


def device() -> torch.device:
    """The accelerator if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def matmul() -> Subject:
    """The product of two square matrices, in 32 bits on a CPU and in bfloat16 on a GPU."""
    dtype = torch.float32 if device().type == "cpu" else torch.bfloat16
    left, right = (torch.randn(SIDE, SIDE, device=device(), dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    return Subject(lambda: torch.mm(left, right, out=out), work=1, flops=2 * SIDE**3)


def resident_mb(field: str) -> float:
    """VmRSS (now) or VmHWM (the peak so far) of this process, in MB; 0 if the system does not report it."""
    lines = _STATUS.read_text(encoding="ascii").splitlines() if _STATUS.is_file() else []
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(field)), 0.0)


def fresh(build: Callable[[], Subject]) -> tuple[Subject, float | None]:
    """The subject, and the memory there was before it: imports and first calls do not count as its own.

    None for a subject whose steps are commands.
    """
    build().run()
    gc.collect()
    if _STATUS.is_file():
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far is the present memory
    if device().type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = resident_mb("VmRSS")
    subject = build()
    others = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subject.run()
    starts_others = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > others
    return subject, None if starts_others else before


def peak_memory_mb(before: float | None) -> float:
    """Peak memory of the subject: on the accelerator, or of the largest process of a command, or of this process."""
    if device().type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    if before is None:
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    return resident_mb("VmHWM") - before


def seconds(subject: Subject, steps: int) -> float:
    """Seconds that a number of steps takes."""
    started = time.perf_counter()
    for _ in range(steps):
        subject.run()
    if device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def serve(suite: str, name: str, answers: TextIO) -> None:
    """Answer requests until the input ends."""
    subject, before = fresh(matmul if name == PEAK else load(suite).subjects()[name])
    for line in sys.stdin:
        request = json.loads(line)
        if "memory" in request:
            answer: dict[str, object] = {"peak_memory_mb": peak_memory_mb(before)}
        else:
            answer = {"seconds": seconds(subject, request["steps"]), "work": subject.work, "flops": subject.flops}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    if not sys.argv[2].startswith(PEERS):
        for way in ("keep_memory", "multiply_exactly"):  # an earlier lockdec may not have these
            getattr(acceleration, way, lambda: None)()
    # A subject's own output must not mix with the answers.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as private:
        os.dup2(2, 1)
        serve(sys.argv[1], sys.argv[2], private)
