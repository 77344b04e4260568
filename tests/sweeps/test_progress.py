"""The progress of a sweep in a log file: one line at the start and at changes, never the same line twice."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from lockdec.store.reading import RESULT
from lockdec.sweeps import progress
from lockdec.sweeps.cells import Sweep
from lockdec.sweeps.progress import Progress


def test_a_log_file_gets_a_line_at_each_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "COUNT_EVERY", 0.01)
    monkeypatch.setattr(progress, "PRINT_EVERY", 0.0)
    shown = Progress(Sweep(tmp_path, ["0", "1"]), "s")
    shown.start()
    lines: list[str] = []

    def wait_for(text: str) -> None:
        deadline = time.monotonic() + 20
        while text not in "\n".join(lines) and time.monotonic() < deadline:
            time.sleep(0.02)
            lines.extend(capsys.readouterr().out.splitlines())

    wait_for("s: 0 of 2 cells done, 0 running, 0 failed, time left unknown")
    (tmp_path / "0").mkdir()
    result = {"status": "ok", "stages": {}, "cost": {"seconds": 30.0}}
    (tmp_path / "0" / RESULT).write_text(json.dumps(result))
    wait_for("s: 1 of 2 cells done")
    shown.stop()
    lines.extend(capsys.readouterr().out.splitlines())
    assert lines == [
        "s: 0 of 2 cells done, 0 running, 0 failed, time left unknown",
        "s: 1 of 2 cells done, 0 running, 0 failed, 30 s left",
    ]
