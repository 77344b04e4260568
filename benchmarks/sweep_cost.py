"""What does a sweep of 16 cells over dimensions cost, beside 16 separate cold runs?

    python benchmarks/sweep_cost.py --outputs outputs/sweep_cost                    real sizes, all 16 cold runs
    python benchmarks/sweep_cost.py --outputs outputs/sweep_cost --cold 4           real sizes, every fourth cold run
    python benchmarks/sweep_cost.py --outputs outputs/sweep_cost --cold 4 --jobs 2  cells of the sweep on two cores
    python benchmarks/sweep_cost.py --outputs outputs/sweep_cost --tiny --cold 2    debug=tiny, to see that it works

Every command runs as a user would type it, including start-up. Cold runs and the sweep start with empty outputs. With
fewer than 16 cold runs, the mean of those stands for the others, and the output says so.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean

from lockdec.store.reading import MADE_BEFORE, read_object
from lockdec.sweeps.cells import own_seconds, read_cells

SIZES = (1, 2, 4, 8)  # d_k x d_v: 16 cells


def seconds(*arguments: str) -> float:
    """Seconds that a lockdec command takes; raises if it fails."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "lockdec.run", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def parts(sweep: Path) -> tuple[dict[str, float], float]:
    """Seconds of each stage that cells of a finished sweep share, and the mean seconds of a cell without them.

    Args:
        sweep: its folder.
    """
    cells = list(read_cells(sweep, [path.name for path in sweep.iterdir() if path.name.isdecimal()]).values())
    made = read_object(sweep / MADE_BEFORE)["stages"] if (sweep / MADE_BEFORE).is_file() else {}
    entries = [entry for cell in (*cells, {"stages": made}) for entry in cell["stages"].items()]
    reused = {entry["key"] for _, entry in entries if entry["reused"]}
    shared: dict[str, float] = {}
    for stage, entry in entries:
        if entry["key"] in reused and not entry["reused"]:
            shared[stage] = shared.get(stage, 0.0) + entry["seconds"]
    return shared, own_seconds(cells) or 0.0


def main() -> None:
    """Measure, print, and save the figures in sweep_cost.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, required=True, help="a folder that is emptied")
    parser.add_argument("--cold", type=int, default=len(SIZES) ** 2, choices=range(1, len(SIZES) ** 2 + 1))
    parser.add_argument("--jobs", type=int, default=1, help="cells of the sweep at once, by hydra/launcher=joblib")
    parser.add_argument("--tiny", action="store_true", help="debug=tiny instead of the real sizes")
    parser.add_argument("overrides", nargs="*", help="for all commands alike")
    given = parser.parse_args()
    shared = [*(["debug=tiny"] if given.tiny else []), "logger=none", *given.overrides]
    cells = [(d_k, d_v) for d_k in SIZES for d_v in SIZES]
    # Evenly spaced over the cells, with the sweep in the middle, so that a drift of the machine affects both.
    chosen = [cells[index * len(cells) // given.cold] for index in range(given.cold)]
    shutil.rmtree(given.outputs, ignore_errors=True)
    cold: list[float] = []

    def run_cold(some: list[tuple[int, int]]) -> None:
        for d_k, d_v in some:
            place = given.outputs / f"cold_{d_k}_{d_v}"
            sizes = (f"cross_attention.d_k={d_k}", f"cross_attention.d_v={d_v}")
            cold.append(seconds(*shared, *sizes, f"paths.outputs={place}"))
            shutil.rmtree(place)
            print(f"cold run {len(cold)} of {len(chosen)} (d_k={d_k}, d_v={d_v}): {cold[-1]:.1f} s", flush=True)

    half = len(chosen) // 2
    run_cold(chosen[:half])
    axes = (f"cross_attention.{name}={','.join(map(str, SIZES))}" for name in ("d_k", "d_v"))
    launcher = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={given.jobs}"] if given.jobs > 1 else []
    sweep = seconds("-m", *shared, *axes, *launcher, "sweep_name=cost", f"paths.outputs={given.outputs / 'sweep'}")
    shared_stages, cell = parts(given.outputs / "sweep" / "sweeps" / "cost")
    print(f"sweep of {len(cells)} cells, {given.jobs} at once: {sweep:.1f} s", flush=True)
    stages = ", ".join(f"{stage} {took:.1f}" for stage, took in shared_stages.items())
    print(f"  what cells share: {sum(shared_stages.values()):.1f} s ({stages}); then {cell:.1f} s a cell", flush=True)
    run_cold(chosen[half:])

    separate = fmean(cold) * len(cells)
    how = "measured" if len(cold) == len(cells) else f"judged by {len(cold)} of them"
    print(f"{len(cells)} cold runs: {separate:.1f} s ({how}; one took {min(cold):.1f} to {max(cold):.1f} s)")
    print(f"the sweep costs {sweep / separate:.3f} of them")
    found = {
        "cells": len(cells),
        "jobs": given.jobs,
        "sweep_seconds": sweep,
        "shared_seconds": shared_stages,
        "cell_seconds": cell,
        "cold_seconds": cold,
        "ratio": sweep / separate,
    }
    (given.outputs / "sweep_cost.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
