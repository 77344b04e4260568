"""How this machine compares with those of benchmarks/results: what `python -m benchmarks` prints at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.side_by_side import OURS
from benchmarks.table import markdown, quantity
from lockdec.runtime.acceleration import exact_products

SIDE = 2048  # of the square matrices that are multiplied
LIBRARIES = "libraries"  # the section of the results with what `libraries` returns
DEFAULT, CHOSEN = "torch's default", "lockdec's choice"
Sections = Mapping[str, Any]


def libraries(threads: int, seconds: float = 1.0, side: int = SIDE) -> dict[str, float]:
    """GFLOP/s of a product of two square matrices in 32 bits, by the library that torch takes and by lockdec's choice.

    Args:
        threads: that multiply.
        seconds: for each library, after one product to warm up.
        side: of the matrices.
    """
    before, count = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_num_threads(threads)
    left, right = torch.randn(side, side), torch.randn(side, side)
    found = {}
    try:
        for name, precision in ((DEFAULT, "highest"), (CHOSEN, exact_products())):
            torch.set_float32_matmul_precision(precision)
            torch.mm(left, right)
            products, started = 0, time.perf_counter()
            while (taken := time.perf_counter() - started) < seconds or not products:
                torch.mm(left, right)
                products += 1
            found[name] = products * 2 * side**3 / taken / 1e9
    finally:
        torch.set_float32_matmul_precision(before)
        torch.set_num_threads(count)
    return found


def compared(here: Sections, recorded: Mapping[str, Sections]) -> str:
    """Each suite that was measured here beside the same suite as it was recorded, on this machine or on others.

    Args:
        here: the sections that were measured now, by name.
        recorded: those of each device, as they were before.
    """
    parts = [f"Matrix product here: {_products(here)}."]
    for device, sections in recorded.items():
        both = [
            name for name in here if "subjects" in here[name] and OURS in sections.get(name, {}).get("subjects", ())
        ]
        rows = [row for name in both for row in _rows(name, here[name], sections[name])]
        head = ["suite", "lockdec here", "recorded", "here / recorded", "beside", "speed-up here", "recorded"]
        table = markdown(head, rows) if rows else "None of these suites was recorded there."
        parts.append(f"Beside {device} (matrix product {_products(sections)}):\n\n{table}")
    if not recorded:
        parts.append("No other figures are recorded in benchmarks/results.")
    return "\n\n".join(parts)


def _rows(name: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> list[list[str]]:
    """One row for each peer that both have; one without a peer if there is none."""
    rates = [section["subjects"][OURS]["per_second"]["median"] for section in (here, there)]
    start = [f"`{name}`", *map(quantity, rates), f"{rates[0] / rates[1]:.2f}"]
    peers = [
        peer
        for peer, other in here["subjects"].items()
        if "ratio" in other and "ratio" in there["subjects"].get(peer, {})
    ]
    ratios = [[f"{section['subjects'][peer]['ratio']['median']:.2f}" for section in (here, there)] for peer in peers]
    return [[*start, peer, *both] for peer, both in zip(peers, ratios, strict=True)] or [[*start, "", "", ""]]


def _products(sections: Sections) -> str:
    """GFLOP/s by both libraries where that was measured; otherwise by lockdec's choice, over all suites."""
    if (both := sections.get(LIBRARIES)) is not None:
        return f"{both[CHOSEN]:,.0f} GFLOP/s, {both[CHOSEN] / both[DEFAULT]:.2f} times {DEFAULT} library"
    peaks = [section["matmul_gflops"] for section in sections.values() if "matmul_gflops" in section]
    return f"{min(peaks):,.0f} to {max(peaks):,.0f} GFLOP/s" if peaks else "not measured"
