"""The lecture, docs/lecture.ipynb: it runs from top to bottom, and what it claims is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

LECTURE = Path(__file__).parents[1] / "docs" / "lecture.ipynb"


def lecture() -> Any:
    """The notebook, as it is committed."""
    read: Any = nbformat.read  # has no types
    return read(LECTURE, as_version=4)


def printed(notebook: Any) -> str:
    """All that its cells have printed."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def drawn(notebook: Any) -> int:
    """How many pictures its cells have drawn."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def check_claims(notebook: Any) -> None:
    text = printed(notebook)
    assert re.findall(r"largest difference .*: (\S+)", text) == ["0.0"] * 3, "unlocked twice, and locked again"
    assert "query.weight   gradient 0.0000" in text
    assert re.search(r"output.weight  gradient 0\.[1-9]", text), "what lets it learn"
    right, shuffled = (float(share) for share in re.findall(r"scenes?: (\d\.\d\d)$", text, re.MULTILINE))
    assert right > 0.6
    assert shuffled < 0.1
    assert drawn(notebook) == 1


def test_it_runs_from_top_to_bottom() -> None:
    notebook = lecture()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    check_claims(notebook)


def test_what_it_shows_before_it_is_run_comes_from_one_run() -> None:
    notebook = lecture()
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    check_claims(notebook)
