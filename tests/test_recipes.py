"""The examples of CONTRIBUTING.md, written to files outside the repository as the page says, and run there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lockdec.caption import main as caption
from tests.conftest import TinyRun
from tests.faults.warm import Warm

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE))
COMMANDS = re.findall(r"^python -m (lockdec\.run --config-dir .*)$", PAGE, re.MULTILINE)


def write(folder: Path) -> None:
    """The page's files."""
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")


def test_every_example_is_tested() -> None:
    scripts = {name for name in FILES if name.endswith(".py")}
    assert scripts == {"squares.py", "lengths.py", "metric.py", "unlocking.py", "first_state.py", "family.py"}
    chosen = [re.findall(r"data=\w+|stage=|bridge=\w+", command) for command in COMMANDS]
    assert chosen == [["data=squares"], ["stage="], ["bridge=first_state"]]


@pytest.mark.parametrize(
    ("script", "printed"), [("metric.py", "1.5"), ("unlocking.py", "tensor(True)"), ("family.py", "True")]
)
def test_a_recipe_in_one_script(script: str, printed: str, warm: Warm, tmp_path: Path) -> None:
    done = warm.python(FILES[script], cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, printed), done.stderr


def test_a_data_set_a_stage_and_a_bridge_of_ones_own(
    tiny: TinyRun, warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    for number, command in enumerate(COMMANDS):
        place = [f"paths.outputs={tiny.outputs}", f"hydra.run.dir={tmp_path}/run{number}"]
        done = warm.lockdec(*command.split()[1:], "debug=tiny", *place, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    squares, lengths, bridge = (
        json.loads((tmp_path / f"run{n}" / "result.json").read_text(encoding="utf-8")) for n in range(3)
    )
    assert squares["command"].startswith("python -m lockdec.run --config-dir conf data=squares ")
    assert squares["data"]["name"] == "Squares"
    assert squares["data"]["test"] == 33
    assert list(lengths["stages"]) == ["pretrain", "attach", "unlock", "finetune", "evaluate", "lengths"]
    assert lengths["lengths"]["mean"] > 0
    assert all(lengths["stages"][name]["reused"] for name in ("pretrain", "attach"))
    assert bridge["bridge"] == {"kind": "first_state", "bias": False, "wanted": None, "parameters": 149 * 32}
    picture = next((tmp_path / "run2").rglob("*.png"))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SystemExit, match=r"first_state\.FirstState is not trusted"):
        caption([str(tmp_path / "run2"), str(picture)])
    caption([str(tmp_path / "run2"), str(picture), "--trust", "first_state."])
    assert capsys.readouterr().out.startswith(f"{picture}: ")
