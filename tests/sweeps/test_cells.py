"""How far a sweep is, as its folder tells it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lockdec.store.reading import RESULT
from lockdec.sweeps.cells import Sweep, claimed, finished_by_others, is_running, own_seconds, read_cells
from lockdec.terminal import duration

HOLD = "import sys, time; from pathlib import Path; from lockdec.sweeps.cells import claimed\n"
HOLD += "with claimed(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def result(status: str = "ok", seconds: float = 10.0, **changes: Any) -> dict[str, Any]:
    return {"status": status, "overrides": [], "stages": {}, "cost": {"seconds": seconds}} | changes


def names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def leave(folder: Path, number: int | str, value: Any) -> Path:
    (folder / str(number)).mkdir(parents=True, exist_ok=True)
    path = folder / str(number) / RESULT
    path.write_text(json.dumps(value) if isinstance(value, dict) else value)
    return path


def test_a_killed_cell_is_not_running(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "0")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    sweep = Sweep(tmp_path, names(2))
    assert is_running(tmp_path / "0")
    assert sweep.standing().running == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert sweep.standing().running == 0
    assert not is_running(tmp_path / "0")


def test_reading_the_progress_disturbs_no_cell(tmp_path: Path) -> None:
    with claimed(tmp_path / "0"):
        assert is_running(tmp_path / "0")
        assert is_running(tmp_path / "0")
    assert not is_running(tmp_path / "0")
    with claimed(tmp_path / "0"):
        pass


def test_a_sweep_counts_what_belongs_to_it(tmp_path: Path) -> None:
    """Cells 0 to 2 have results of an earlier attempt, of which that of 1 alone still counts; 3 to 6 get theirs now."""
    leave(tmp_path, 0, result("failed"))
    leave(tmp_path, 1, result("ok"))
    leave(tmp_path, 2, result("ok"))  # of another sweep of this name
    leave(tmp_path, 7, result("ok"))  # beyond this sweep
    sweep = Sweep(tmp_path, names(7), finished={"1"})
    leave(tmp_path, 3, result("failed"))
    leave(tmp_path, 4, "{ half a result")
    leave(tmp_path, 5, result("interrupted"))
    standing = sweep.standing()
    assert (standing.done, standing.running, standing.failed, standing.total) == (1, 0, 1, 7)
    assert standing.line("s") == "s: 1 of 7 cells done, 0 running, 1 failed, 50 s left"
    leave(tmp_path, 2, result("ok"))
    assert sweep.standing().done == 2


def test_the_clock_does_not_decide_which_results_are_new(tmp_path: Path) -> None:
    """Another machine wrote it, whose clock is an hour behind."""
    sweep = Sweep(tmp_path, ["a/b"], finished=())
    path = leave(tmp_path / "a", "b", result("ok"))
    os.utime(path, (time.time() - 3600,) * 2)
    assert sweep.standing().done == 1


def test_the_results_of_all_cells_are_read_whatever_their_folders_are_called(tmp_path: Path) -> None:
    leave(tmp_path, "s_4", result("ok"))
    leave(tmp_path / "a", "b", result("failed", error="x"))
    leave(tmp_path, "half", "{ half a result")
    cells = read_cells(tmp_path, ["s_4", "a/b", "half", "killed"])
    assert [cell["status"] for cell in cells.values()] == ["ok", "failed", "failed", "failed"]
    assert "not JSON" in cells["half"]["error"]
    assert cells["killed"]["error"] == "it left no result.json: its process was ended, or it never started"


def test_a_result_that_changes_is_read_again(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, names(1))
    assert sweep.standing().line("s") == "s: 0 of 1 cells done, 0 running, 0 failed, time left unknown"
    path = leave(tmp_path, 0, result("interrupted"))
    assert sweep.standing().done == 0
    leave(tmp_path, 0, result("ok"))
    os.utime(path, (1, 1))
    assert sweep.standing().line("s") == "s: 1 of 1 cells done, 0 running, 0 failed"


def test_what_a_cell_made_for_all_is_not_expected_of_the_others() -> None:
    """The first cell made the shared stage in 90 s and its own in 10; the second reused the shared one."""
    first = result(seconds=101.0)
    first["stages"] = {
        "pretrain": {"key": "p", "reused": False, "seconds": 90.0},
        "finetune": {"key": "f1", "reused": False, "seconds": 10.0},
    }
    second = result(seconds=11.0)
    second["stages"] = {
        "pretrain": {"key": "p", "reused": True, "seconds": 0.1},
        "finetune": {"key": "f2", "reused": False, "seconds": 10.0},
    }
    assert own_seconds([]) is None
    assert own_seconds([first]) == 101.0
    assert own_seconds([first, second]) == pytest.approx(11.0)


def test_cells_side_by_side_share_the_time_left(tmp_path: Path) -> None:
    leave(tmp_path, 0, result("ok", seconds=100.0))
    sweep = Sweep(tmp_path, names(5))
    with claimed(tmp_path / "1"):
        assert sweep.standing().seconds_left == 400.0
        with claimed(tmp_path / "2"):
            assert sweep.standing().seconds_left == 200.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (89, "89 s"), (90, "2 min"), (840, "14 min"), (5400, "1 h 30 min"), (11100, "3 h 05 min")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_finished_cells_of_another_command_are_counted(tmp_path: Path) -> None:
    """Not those that this command has, too, whatever they were told about threads and names, nor failed ones."""
    leave(tmp_path, 0, result(overrides=["cross_attention.d_k=1", "seed=0", "trainer.threads=2"]))
    leave(tmp_path, 1, result(overrides=["cross_attention.d_k=1", "encoder=vae", "seed=0"]))
    leave(tmp_path, "vae/2", result(overrides=["encoder=vae", "name=vae", "seed=0"]))
    leave(tmp_path, 3, result("failed", overrides=["encoder=vae", "seed=3"]))
    leave(tmp_path, 4, "cut")
    mine = [["seed=0", "cross_attention.d_k=1", "logger=none"], ["seed=1", "cross_attention.d_k=1"]]
    assert finished_by_others(tmp_path, ["0", "1"], mine, []) == (2, 1)
    assert finished_by_others(tmp_path, ["0", "1"], mine, ["1"]) == (1, 0)  # whatever it was told, it is finished
    assert finished_by_others(tmp_path, ["0", "1", "2"], [*mine, ["encoder=vae", "seed=0"]], []) == (1, 1)
    assert finished_by_others(tmp_path / "none", ["0", "1"], mine, []) == (0, 0)
