"""Tiny sweeps: the command, its cells, and what they left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lockdec.store.reading import MADE_BEFORE, RESULT
from tests.conftest import TinyRun, composed

SHARED = ("pretrain", "attach", "prior")  # of cells that differ in sizes alone


TINY_SWEEP = ("-m", "debug=tiny", "data.limit=64", "~text.sources.wikipedia", "pretrain.steps=12", "sweep_name=s")


def results(cwd: Path) -> dict[str, dict[str, Any]]:
    return cell_results(cwd / "outputs" / "sweeps" / "s")


def cell_results(sweep: Path) -> dict[str, dict[str, Any]]:
    """What result.json of each cell holds, by its name."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(sweep.glob(f"*/{RESULT}"))}


def made(cells: dict[str, dict[str, Any]], stage: str) -> int:
    """How many cells made this stage instead of reusing it."""
    return sum(not cell["stages"][stage]["reused"] for cell in cells.values() if cell["stages"])


def require_made_first(sweep: Path, cells: dict[str, dict[str, Any]], printed: str) -> None:
    """Assert that the stages which two cells share were made once, before cells with one thread each."""
    assert {stage: made(cells, stage) for stage in (*SHARED, "finetune")} == dict.fromkeys(SHARED, 0) | {"finetune": 2}
    before = json.loads((sweep / MADE_BEFORE).read_text())["stages"]
    keys = [{stage: cell["stages"][stage]["key"] for stage in SHARED} for cell in cells.values() if cell["stages"]]
    assert keys == [{stage: entry["key"] for stage, entry in before.items()}] * 2
    assert f"made first, for all 2 cells: {', '.join(SHARED)}" in printed
    assert "Learning curve of pretrain" in (sweep / "report.html").read_text()
    for name in cells:
        assert OmegaConf.load(sweep / name / "config.yaml").trainer.threads == 1


def tiny_cell(tiny: TinyRun, *overrides: str) -> Any:
    return composed("debug=tiny", f"paths.outputs={tiny.outputs}", *overrides)


def cell_over(tiny: TinyRun, outputs: Path, *overrides: str) -> Any:
    """A cell that finds what the tiny run has made, and nothing that another test has added to its store."""
    return composed("debug=tiny", f"paths.outputs={outputs}", f"paths.stores=[{tiny.own}]", *overrides)
