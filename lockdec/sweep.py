"""What a sweep says at its end, from the result.json files of its cells alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

_failed: list[str] = []


def failed_cells() -> list[str]:
    """The folders of the cells that failed in the sweep this process has run; they decide its exit status."""
    return list(_failed)


class SweepEnd(Callback):
    """Hydra's callback after the last cell: names the failed cells, writes results.csv and the report."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        from lockdec.console import console, printable  # here, since --help has no use for rich
        from lockdec.report.page import write_report

        folder = Path(config.hydra.sweep.dir)
        cells = read_cells(folder)
        failed = {name: cell for name, cell in cells.items() if cell["status"] != "ok"}
        _failed.extend(failed)
        console.print(
            f"\n{len(cells) - len(failed)} of {len(cells)} cells done in [bold]{printable(str(folder))}[/]",
            soft_wrap=True,
        )
        for name, cell in failed.items():
            what = " ".join(cell.get("overrides", []))
            console.print(f"  cell {name} failed: {printable(str(cell['error']))} ({printable(what)})", soft_wrap=True)
        if failed:
            console.print("Run the same command again to retry them; finished cells are not repeated.")
        console.print(f"Report: [bold]{printable(str(write_report([folder]).report))}[/]", soft_wrap=True)


def read_cells(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The results of a sweep's cells by their number, the unreadable ones as failed."""
    cells: dict[str, Mapping[str, Any]] = {}
    numbered = [path for path in folder.glob("*/") if path.name.isdecimal()]
    for path in sorted(numbered, key=lambda path: int(path.name)):
        try:
            cells[path.name] = json.loads((path / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            cells[path.name] = {"status": "failed", "error": f"{path / 'result.json'}: {error}"}
    return cells
