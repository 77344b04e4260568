"""Where lockdec's time goes in a suite, by torch.profiler: python -m benchmarks.profile greedy finetuning [--threads 2]

The self time of each operation is summed by kind of work. The remaining time is Python, including Lightning and the
profiler, which slows small operations down. Kept beside the suites' results.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.__main__ import keep, stamped, suites
from benchmarks.side_by_side import OURS, load
from benchmarks.table import profile_table
from lockdec.runtime.acceleration import keep_memory, multiply_exactly

SECONDS = 5.0  # of profiled steps
ATEN = "aten::"
# By the beginning of an operation's name; the first that fits counts.
KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "addbmm"),
    "convolutions": ("mkldnn_convolution", "_convolution", "convolution", "thnn_conv2d", "_slow_conv2d"),
    "fused attention": ("_scaled_dot_product", "scaled_dot_product"),
    "softmax, norms, activations": (
        "_softmax", "_log_softmax", "native_layer_norm", "_fused_rms_norm", "gelu", "silu", "hardtanh", "clamp",
        "nll_loss",
    ),
    "copies and layout": (
        "copy_", "index", "_index_put", "cat", "fill_", "zero_", "gather", "scatter", "constant_pad", "where",
        "masked_fill", "embedding", "slice_backward", "select_backward",
    ),
    "random numbers": ("normal_", "uniform_", "bernoulli_", "random_"),
    "optimizer": ("_fused_adam", "_foreach", "linalg_vector_norm"),
}  # fmt: skip
OTHER, OUTSIDE = "other operations", "outside of operations"


def kind(operation: str) -> str:
    """The kind of work of an operation."""
    name = operation.removeprefix(ATEN)
    return next((kind for kind, names in KINDS.items() if name.startswith(names)), OTHER)


def profiled(suite: str) -> dict[str, Any]:
    """Milliseconds per step of lockdec in a suite, and the share of each kind of work."""
    run = load(suite).subjects()[OURS]().run
    run()
    started = time.perf_counter()
    run()
    steps = max(1, round(SECONDS / (time.perf_counter() - started)))
    started = time.perf_counter()
    for _ in range(steps):
        run()
    alone = time.perf_counter() - started
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        started = time.perf_counter()
        for _ in range(steps):
            run()
        whole = time.perf_counter() - started
    spent = dict.fromkeys((*KINDS, OTHER), 0.0)
    for event in watched.key_averages():
        if event.key.startswith(ATEN):
            spent[kind(event.key)] += event.self_cpu_time_total / 1e6
    spent[OUTSIDE] = max(0.0, whole - sum(spent.values()))
    return {
        "title": load(suite).TITLE,
        "milliseconds": 1e3 * alone / steps,
        "shares": {
            name: seconds / whole for name, seconds in sorted(spent.items(), key=lambda item: -item[1]) if seconds
        },
    }


def main() -> None:
    """Profile, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="+", choices=suites(), metavar="SUITE", help=", ".join(suites()))
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_memory()
    multiply_exactly()
    for suite in given.suites:
        section = stamped({"threads": given.threads, **profiled(suite)})
        print(f"## {suite}\n\n{profile_table(section)}\n\n{keep(f'{suite}_profile', section)}\n", flush=True)


if __name__ == "__main__":
    main()
