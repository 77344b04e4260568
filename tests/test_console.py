"""What the terminal shows: tables with the numbers of a run, and no text that could control it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lockdec import console as terminal
from lockdec.console import LongWork, Summary, metric_table, printable, printable_lines, stage_table, track
from lockdec.report.page import write_report
from tests.report.runs import result, write_run


def shown(*what: Any) -> list[str]:
    to = Console(file=io.StringIO(), width=100, highlight=False)
    for one in what:
        to.print(one)
    file = to.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


def row(lines: list[str], name: str) -> list[str]:
    return next(line.split() for line in lines if line.split()[:1] == [name])


def test_each_control_has_its_column() -> None:
    controls = {"locked": {"exact": 0.25, "loss": 2.0}, "nearest_neighbour": {"exact": 0.5}}
    lines = shown(metric_table({"exact": 0.75, "loss": 1.0}, controls))
    assert row(lines, "metric") == ["metric", "captions", "locked", "nearest_neighbour"]
    assert row(lines, "exact") == ["exact", "0.750", "0.250", "0.500"]
    assert row(lines, "loss") == ["loss", "1.000", "2.000"], "what copies a caption has no loss"


def test_a_summary_shows_what_a_probe_reads(tmp_path: Path) -> None:
    """Where a support set has no input that mentions an attribute, there is no number for it."""
    to = Console(file=io.StringIO(), width=100, highlight=False)
    probe = {"support": {"colour": 0.5}, "train": {"colour": 0.75, "hair": 1.0}, "evaluated": "test"}
    commonest = {"colour": 0.25, "hair": 0.125}
    Summary(to).result({"stages": {}, "probe": probe | {"commonest": commonest}}, [], tmp_path)
    assert isinstance(to.file, io.StringIO)
    lines = to.file.getvalue().splitlines()
    assert row(lines, "linear") == ["linear", "probe", "support", "train", "commonest"]
    assert row(lines, "colour") == ["colour", "0.500", "0.750", "0.250"]
    assert row(lines, "hair") == ["hair", "1.000", "0.125"]


def test_stages_are_made_or_reused() -> None:
    entries = {
        "attach": {"key": "a" * 64, "reused": True, "seconds": 0.04},
        "unlock": {"key": "b" * 64, "reused": False, "seconds": 12.34},
    }
    lines = shown(stage_table(entries))
    assert row(lines, "attach") == ["attach", "reused", "0.0", "a" * 12]
    assert row(lines, "unlock") == ["unlock", "made", "12.3", "b" * 12]


def test_a_summary_shows_captions_as_text(tmp_path: Path) -> None:
    to = Console(file=io.StringIO(), width=100, highlight=False)
    result: dict[str, Any] = {"stages": {}, "metrics": {"exact": 1.0}, "controls": {}}
    captions = [{"id": "[bold]x[/]", "caption": "a [red]cat[/]\x1b[2J", "references": ["a cat", "one cat"]}]
    Summary(to).result(result, captions, tmp_path)
    file = to.file
    assert isinstance(file, io.StringIO)
    text = file.getvalue()
    assert "\x1b" not in text
    assert "[bold]x[/]" in text, "markup of a file is text"
    assert "a cat / one cat" in text
    assert str(tmp_path) in text


def test_what_is_printed_has_neither_control_characters_nor_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_API_KEY", "tops3cret-tops3cret")
    assert "tops3cret" not in printable("key tops3cret-tops3cret")
    assert printable("a\x1bb\nc") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"
    assert printable_lines("a\x1b\nb") == "a\N{REPLACEMENT CHARACTER}\nb"


def test_tracking_yields_every_item_with_a_bar_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=file, force_terminal=True))
    assert list(track([1, 2, 3], "counting quickly", patience=60.0)) == [1, 2, 3]
    assert list(track(iter("abc"), "counting slowly", total=3, patience=-1.0)) == ["a", "b", "c"]
    assert "counting quickly" not in file.getvalue()
    assert "counting slowly" in file.getvalue()


def log_file(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed from now on, as into a file."""
    file = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=file, highlight=False))
    return file


def test_a_log_file_gets_a_line_every_half_minute_with_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes a second, so that after 30 of 100 steps 70 s are left, and after 60 another 40."""
    clock = [1000.0]
    monkeypatch.setattr("lockdec.console.time.monotonic", lambda: clock[0])
    file = log_file(monkeypatch)
    work = LongWork("finetune", 100)
    for step in range(1, 101):
        clock[0] += 1
        work.update(step, f"loss {step / 10:.3f}")
    work.stop()
    assert file.getvalue().splitlines() == [
        "  finetune: 30 of 100, about 70 s left, loss 3.000",
        "  finetune: 60 of 100, about 40 s left, loss 6.000",
        "  finetune: 90 of 100, about 10 s left, loss 9.000",
    ]


def test_what_was_done_before_a_kill_does_not_count_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Continued at step 9,000: ten steps in 30 s leave 990 for 50 minutes."""
    clock = [0.0]
    monkeypatch.setattr("lockdec.console.time.monotonic", lambda: clock[0])
    file = log_file(monkeypatch)
    work = LongWork("pretrain", 10_000, done=9_000)
    clock[0] = 30.0
    work.update(9_010)
    assert file.getvalue() == "  pretrain: 9010 of 10000, about 50 min left\n"


def test_items_tell_how_many_they_are_in_a_log_file_and_nothing_when_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    file = log_file(monkeypatch)
    assert list(track("abc", "encoding inputs", patience=-1.0)) == ["a", "b", "c"]
    assert file.getvalue() == ""
    monkeypatch.setattr(terminal, "LINE_EVERY", 0.0)
    assert list(track(iter("abc"), "encoding [inputs]", patience=-1.0)) == ["a", "b", "c"]
    assert file.getvalue().splitlines() == ["  encoding [inputs]: 1", "  encoding [inputs]: 2"]


def test_captions_cannot_steer_the_terminal_or_the_page(tmp_path: Path) -> None:
    """A run whose name and captions are made of everything that steers."""
    steering = "\x1b]0;hacked\x07\x1b[2J\u202eevil\u2066\u200f\x9b31m\r\x00<script>alert(1)</script>[bold]"
    shown = printable(steering)
    assert not [character for character in shown if not character.isprintable()]
    assert "\\[bold]" in shown
    run = write_run(tmp_path / "run", result(name=steering, error=steering), captions={"a": steering})
    page = write_report([run]).report.read_text()
    assert not [character for character in "\x1b\x9b\u202e\u2066\u200f\x00" if character in page]
    assert "<script>alert(1)" not in page
