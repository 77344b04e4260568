"""A sweep on a real Ray of this machine: its workers share one store."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.faults.warm import Warm
from tests.sweeps.sweeping import TINY_SWEEP, made, results


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'lockdec[ray]'")
def test_cells_on_ray_share_the_store(warm: Warm, tmp_path: Path) -> None:
    launcher = ("hydra/launcher=ray", "hydra.launcher.num_cpus=2")
    sweep = ("cross_attention.d_k=1,2", "pipeline.order=[pretrain,attach,unlock]")
    done = warm.lockdec(*TINY_SWEEP, *launcher, *sweep, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 cells done" in done.stdout
    cells = results(tmp_path)
    assert [cell["cross_attention"]["d_k"] for cell in cells.values()] == [1, 2]
    assert {stage: made(cells, stage) for stage in ("pretrain", "attach")} == {"pretrain": 1, "attach": 1}
