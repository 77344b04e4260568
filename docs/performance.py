"""Fill in the tables of docs/performance.md: python docs/performance.py [benchmarks/results/DEVICE.json ...]

Every place in the page is named after a section of the results (`python -m benchmarks` writes them). Without arguments
all results are read; a section that several devices have gets a table for each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from placeholders import fill, names

from benchmarks.table import table

PAGE = Path(__file__).with_suffix(".md")
RESULTS = PAGE.parent.parent / "benchmarks" / "results"


def main(results: list[Path]) -> None:
    """Write the page's tables; a place without results says so."""
    devices: list[dict[str, Any]] = [json.loads(path.read_text(encoding="utf-8")) for path in results]
    text = PAGE.read_text(encoding="utf-8")
    fillings = {}
    for name in names(text):
        found = [table(sections[name]) for sections in devices if name in sections]
        fillings[name] = "\n\n".join(found) or f"*`{name}` has not been measured yet.*"
    PAGE.write_text(fill(text, fillings, PAGE.name), encoding="utf-8")


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:]] or sorted(RESULTS.glob("*.json")))
