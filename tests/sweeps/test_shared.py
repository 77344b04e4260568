"""Stages that all cells share: found, made before the cells start, and left to them where that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockdec.sweeps.jobs import run_job
from lockdec.sweeps.shared import find_common, make_shared
from tests.conftest import TinyRun, composed
from tests.sweeps.sweeping import SHARED, cell_over


def test_shared_stages_are_those_of_all_cells_that_can_work(tmp_path: Path) -> None:
    def shared(*cells: tuple[str, ...]) -> tuple[int, list[str]] | None:
        configs = [composed("debug=tiny", f"paths.outputs={tmp_path}", *cell) for cell in cells]
        common = find_common(iter(configs), [str(number) for number in range(len(configs))], tmp_path / "sweep")
        return (common.cells, list(common.places)) if common else None

    wide, narrow, broken = ("cross_attention.d_k=4",), ("cross_attention.d_k=1",), ("fewshot.shots=5000",)
    assert shared(wide, narrow) == (2, [*SHARED])
    assert shared(broken, wide, narrow) == (2, [*SHARED])
    assert shared(wide, broken) is None
    assert shared(wide, (*wide, "finetune.steps=11")) == (2, ["pretrain", "attach", "unlock", "prior"])
    assert shared(wide, (*narrow, "pretrain.steps=21")) == (2, ["attach"])
    assert shared(wide, (*narrow, "pretrain.steps=21", "data.limit=150")) is None
    assert shared(wide, (*narrow, f"paths.outputs={tmp_path / 'other'}")) is None
    assert list(tmp_path.iterdir()) == []


def test_the_search_for_shared_stages_ends_when_nothing_has_to_be_made(tiny: TinyRun, tmp_path: Path) -> None:
    """The first cell is finished; the second lacks stages of its own; the third shares only what is there with it."""
    outputs = tmp_path / "outputs"
    run_job(cell_over(tiny, outputs), tmp_path / "0", [], "0")
    sizes = (f"cross_attention.d_v={d_v}" for d_v in (5, 6, 7))
    cells = iter([cell_over(tiny, outputs), *(cell_over(tiny, outputs, size) for size in sizes)])
    assert find_common(cells, ["0", "1", "2", "3"], tmp_path) is None
    assert len(list(cells)) == 1


def test_a_shared_stage_that_fails_is_left_to_the_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    cells = [composed("debug=tiny", f"paths.outputs={tmp_path / 'file'}", f"seed={seed}") for seed in (0, 1)]
    make_shared(cells, ["0", "1"], tmp_path / "sweep", "s")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "  made first, for all 2 cells: pretrain, attach"
    assert said[1].startswith("  shared stages not made, so each cell tries again: paths.outputs=")
    assert len(said) == 2
