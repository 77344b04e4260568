"""Tiny sweeps: the command, its cells, and what they left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lockdec.store.reading import RESULT
from tests.conftest import TinyRun, composed

SHARED = ("pretrain", "attach", "prior")  # of cells that differ in sizes alone


TINY_SWEEP = ("-m", "debug=tiny", "data.limit=64", "~text.sources.wikipedia", "pretrain.steps=12", "sweep_name=s")


def results(cwd: Path) -> dict[str, dict[str, Any]]:
    found = sorted((cwd / "outputs" / "sweeps" / "s").glob(f"*/{RESULT}"))
    return {path.parent.name: json.loads(path.read_text()) for path in found}


def made(cells: dict[str, dict[str, Any]], stage: str) -> int:
    """How many cells made this stage instead of reusing it."""
    return sum(not cell["stages"][stage]["reused"] for cell in cells.values() if cell["stages"])


def tiny_cell(tiny: TinyRun, *overrides: str) -> Any:
    return composed("debug=tiny", f"paths.outputs={tiny.outputs}", *overrides)
