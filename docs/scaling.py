"""Fill in the tables of docs/scaling.md: python docs/scaling.py

Measured rows come from docs/performance/decoder_sizes.json (`python -m benchmarks.decoder_sizes`); those of larger
decoders are arithmetic, from the number of their weights and what the largest measured one took for each. What runs on
a GPU took comes from docs/performance/gpu.json, which holds parts of their result.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from placeholders import fill

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks

from benchmarks.decoder_sizes import CELL, FIGURES, LLAMA, numbers
from benchmarks.table import markdown

PAGE = Path(__file__).with_suffix(".md")
ON_GPU = PAGE.parent / "performance" / "gpu.json"
HEAD = [
    "decoder",
    "weights",
    "artifact",
    "import: peak",
    "import: time",
    "finetuning: peak",
    "states below the bridge",
    "a step",
]


def row(name: str, count: int, found: dict[str, Any], others: list[dict[str, Any]]) -> list[str]:
    """A row of the table; what was not measured is said to be about what the largest other decoder makes likely."""

    def told(figure: str, unit: str, each: float = 1.0) -> str:
        value, about = (found[figure], "") if figure in found else (scaled(figure, count, others), "about ")
        return about + (f"{value * 2**20 / 1e9:.2f} GB" if unit == "GB" else f"{value / each:.1f} s")

    steps = float(others[0]["steps"])
    return [
        f"`{name}`",
        f"{count / 1e9:.2f} B",
        f"{found.get('decoder_bytes', 2 * count) / 1e9:.2f} GB",
        told("import_peak_mb", "GB"),
        told("import_seconds", "s"),
        told("cell_peak_mb", "GB"),
        told("prefix_seconds", "s"),
        told("finetune_seconds", "s", steps),
    ]


def scaled(figure: str, count: int, known: list[dict[str, Any]]) -> float:
    """A figure of a decoder of so many weights, from that of the largest measured one.

    Times, and what an import takes beyond a process without a decoder, grow with the weights; finetuning holds each of
    them in float32.
    """
    largest = max((found for found in known if figure in found), key=lambda found: int(found["numbers"]))
    if figure == "cell_peak_mb":
        return float(largest[figure] + 4 * (count - largest["numbers"]) / 2**20)
    bare = largest["bare_peak_mb"] if figure == "import_peak_mb" else 0.0
    return float(bare + count / largest["numbers"] * (largest[figure] - bare))


def on_gpu() -> str:
    """A row for each run: the seconds of its stages, and the most memory that it took on the GPU and beside it."""
    rows = []
    runs = json.loads(ON_GPU.read_text(encoding="utf-8"))
    for run in runs:
        seconds = (f"{run['stages'][stage]:.1f}" for stage in ("pretrain", "finetune"))
        memory = (f"{run['cost'][name] * 2**20 / 1e9:.2f} GB" for name in ("peak_gpu_memory_mb", "peak_memory_mb"))
        f1 = "" if run["token_f1"] is None else f"{run['token_f1']:.3f}"
        rows.append([f"`{run['overrides']}`", *seconds, f"{run['cost']['seconds']:.1f}", *memory, f1])
    head = ["overrides", "pretrain, s", "finetune, s", "all, s", "memory of the GPU", "of the process", "token F1"]
    where = sorted({f"{run['device']}, torch {run['versions']['torch']}, {run['finished'][:10]}" for run in runs})
    return f"{markdown(head, rows)}\n\nMeasured on {'; '.join(where)}."


def main() -> None:
    """Write the tables."""
    known = json.loads(FIGURES.read_text(encoding="utf-8"))
    counts = {name: numbers(shape) for name, shape in LLAMA.items()}
    whole = sorted(known.values(), key=lambda found: "steps" not in found)
    rows = [row(name, count, known.get(name, {}), whole) for name, count in counts.items()]
    beside = ", ".join(sorted({found["beside"] for found in known.values() if found["beside"]}))
    bare = max(found["bare_peak_mb"] for found in known.values()) * 2**20 / 1e9
    notes = f"Without any decoder, the process peaks at {bare:.2f} GB. "
    notes += f"Finetuning: {' '.join(f'`{option}`' for option in CELL)}; a step with its share of starting and ending."
    notes += f" Measured beside {beside}: the times are those of a busy machine." if beside else ""
    text = PAGE.read_text(encoding="utf-8")
    tables = {"gpu": on_gpu(), "sizes": f"{markdown(HEAD, rows)}\n\n{notes}"}
    PAGE.write_text(fill(text, tables, PAGE.name), encoding="utf-8")


if __name__ == "__main__":
    main()
