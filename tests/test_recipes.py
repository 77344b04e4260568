"""The examples of CONTRIBUTING.md, written to files outside the repository as the page says, and run there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TinyRun

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))
COMMANDS = re.findall(r"^python -m (lockdec\.run --config-dir .*)$", PAGE, re.MULTILINE)


def run(folder: Path, *arguments: str) -> str:
    """Write the page's files into a folder, and run Python there; returns what it printed."""
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_tested() -> None:
    scripts = {name for name in FILES if name.endswith(".py")}
    assert scripts == {"squares.py", "lengths.py", "metric.py", "unlocking.py", "family.py"}
    assert [re.findall(r"data=\w+|stage=", command) for command in COMMANDS] == [["data=squares"], ["stage="]]


@pytest.mark.parametrize(
    ("script", "printed"), [("metric.py", "1.5"), ("unlocking.py", "tensor(True)"), ("family.py", "True")]
)
def test_a_recipe_in_one_script(tmp_path: Path, script: str, printed: str) -> None:
    assert run(tmp_path, script).strip() == printed


def test_a_data_set_and_a_stage_of_ones_own(tiny: TinyRun, tmp_path: Path) -> None:
    for number, command in enumerate(COMMANDS):
        place = [f"paths.outputs={tiny.outputs}", f"hydra.run.dir={tmp_path}/run{number}"]
        run(tmp_path, "-m", *command.split(), "debug=tiny", *place)
    squares, lengths = (json.loads((tmp_path / f"run{n}" / "result.json").read_text(encoding="utf-8")) for n in (0, 1))
    assert squares["data"]["name"] == "Squares"
    assert squares["data"]["test"] == 33
    assert list(lengths["stages"]) == ["pretrain", "attach", "unlock", "finetune", "evaluate", "lengths"]
    assert lengths["lengths"]["mean"] > 0
    assert all(lengths["stages"][name]["reused"] for name in ("pretrain", "attach"))
