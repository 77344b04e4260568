"""A sweep on a real Ray of this machine: its workers share one store."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'lockdec[ray]'")
def test_cells_on_ray_share_the_store(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lockdec.run", "-m", "hydra/launcher=ray", "hydra.launcher.num_cpus=2"]
    command += [
        "debug=tiny",
        "data.limit=64",
        "~text.sources.wikipedia",
        "pretrain.steps=2",
        f"paths.outputs={tmp_path}",
    ]
    command += ["pipeline.order=[pretrain,attach,unlock]", "cross_attention.d_k=1,2", "sweep_name=on_ray"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 cells done" in done.stdout
    results = [json.loads((tmp_path / f"sweeps/on_ray/{number}/result.json").read_text()) for number in (0, 1)]
    assert [result["cross_attention"]["d_k"] for result in results] == [1, 2]
    assert sum(not result["stages"]["pretrain"]["reused"] for result in results) == 1
    assert sum(not result["stages"]["attach"]["reused"] for result in results) == 1
