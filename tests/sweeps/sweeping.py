"""Tiny sweeps: the command, its cells, and what they left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from lockdec.store.reading import RESULT
from tests.conftest import TinyRun, composed

SHARED = ("pretrain", "attach", "prior")  # of cells that differ in sizes alone


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "lockdec.run", "-m", "debug=tiny", "sweep_name=s", *arguments]


def sweep(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=cwd, env=os.environ, capture_output=True, text=True, timeout=300, check=False
    )


def results(cwd: Path) -> dict[str, dict[str, Any]]:
    found = sorted((cwd / "outputs" / "sweeps" / "s").glob(f"*/{RESULT}"))
    return {path.parent.name: json.loads(path.read_text()) for path in found}


def made(cells: dict[str, dict[str, Any]], stage: str) -> int:
    """How many cells made this stage instead of reusing it."""
    return sum(not cell["stages"][stage]["reused"] for cell in cells.values() if cell["stages"])


def tiny_cell(tiny: TinyRun, *overrides: str) -> Any:
    return composed("debug=tiny", f"paths.outputs={tiny.outputs}", *overrides)
