"""What results do not depend on: time, place, locale, hash seed, and how many threads a user has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.faults.conftest import essence
from tests.faults.warm import TINY, Command, Warm


def test_another_time_zone_locale_directory_and_hash_seed_change_no_bit(
    undisturbed: Command, warm: Warm, tmp_path: Path
) -> None:
    """A process of its own: a hash seed cannot be changed in one that runs."""
    outputs, elsewhere = tmp_path / "outputs", tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = outputs / "runs" / "run"
    environment = os.environ | {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    repository = str(Path(__file__).parents[2])
    subprocess.run(
        [sys.executable, "-m", "lockdec.run", *TINY, f"paths.outputs={outputs}", f"hydra.run.dir={folder}", "name=run"],
        cwd=elsewhere,
        env=environment | {"PYTHONHASHSEED": "12345", "PYTHONPATH": repository},
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=300,
    )
    other = Command(warm, 0, outputs, folder, tmp_path / "log", tmp_path / "diary")
    assert essence(other) == essence(undisturbed)
    assert list(elsewhere.iterdir()) == []
