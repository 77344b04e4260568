"""What is read from disk, what is refused, and that one bad file never hides the good ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lockdec.errors import DataError
from lockdec.report import results
from lockdec.report.page import write_report
from lockdec.store.reading import MADE_BEFORE, RUNNING
from tests.report.runs import result, write_run, write_sweep

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 40


def test_cells_come_in_numeric_order_with_all_their_numbers(tmp_path: Path) -> None:
    write_sweep(tmp_path / "sweep", dims=((2, 2, 2),), shots=(16,), seeds=tuple(range(11)))
    runs = results.read([tmp_path / "sweep"]).runs
    assert [run.label for run in runs] == [f"sweep/{number}" for number in range(11)]
    written = result((2, 2, 2), 16, 10)
    assert runs[10].number("metrics.token_f1") == written["metrics"]["token_f1"]
    assert runs[10].number("controls.shuffled.chrf") == written["controls"]["shuffled"]["chrf"]
    assert runs[10].overrides == tuple(written["overrides"])
    assert [stage.name for stage in runs[10].stages] == ["pretrain", "attach", "finetune", "evaluate"]


def test_a_run_folder_and_the_folders_above_it_are_read_alike(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs" / "demo" / "2026-01-01")
    for folder in (run, run.parent, run.parent.parent):
        assert [found.folder for found in results.read([folder]).runs] == [run.resolve()]
    assert len(results.read([run, run.parent]).runs) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"schema": 1, "sta', "not JSON"),
        ("[1]", "not a JSON object"),
        (json.dumps(result(schema=99)), "schema=99: this version of lockdec reads 1, 2, 3"),
        (json.dumps(result(status="fine")), "status='fine' is none of ok, failed, interrupted"),
        (json.dumps(result(metrics={"token_f1": "high"})), "metrics.token_f1='high' is not a number"),
        (json.dumps(result(stages={"pretrain": {"reused": "yes"}})), "stages.pretrain needs"),
        (
            json.dumps(result(stages={"pretrain": {"version": "1"}})),
            "stages.pretrain.version='1' is not a whole number",
        ),
        (json.dumps(result(stages=[1])), "stages is not a JSON object"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_damaged_result_is_named_and_the_others_are_read(tmp_path: Path, content: str, reason: str) -> None:
    write_sweep(tmp_path / "sweep", dims=((2, 2, 2),), shots=(16,), seeds=(0, 1))
    (tmp_path / "sweep" / "1" / "result.json").write_text(content)
    collection = results.read([tmp_path / "sweep"])
    assert [run.label for run in collection.runs] == ["sweep/0"]
    assert [skipped.path.parent.name for skipped in collection.skipped] == ["1"]
    assert reason in collection.skipped[0].reason


def test_a_failed_run_may_lack_everything_after_its_stages(tmp_path: Path) -> None:
    failed: dict[str, Any] = {
        "schema": 1,
        "status": "failed",
        "error": "out of memory",
        "name": "x",
        "stages": {},
    }
    write_run(tmp_path / "3", failed, extras=False)
    (run,) = results.read([tmp_path / "3"]).runs
    assert (run.status, run.text("error"), run.number("metrics.token_f1")) == (
        "failed",
        "out of memory",
        None,
    )


def test_a_cell_without_a_result_is_counted_as_unfinished(tmp_path: Path) -> None:
    write_sweep(tmp_path / "sweep", dims=((2, 2, 2),), shots=(16,), seeds=(0,))
    (tmp_path / "sweep" / "1").mkdir()
    (tmp_path / "sweep" / "1" / "config.yaml").write_text("seed: 1")
    assert results.read([tmp_path / "sweep"]).unfinished == ("sweep/1",)


def test_cells_with_names_of_their_own_are_found_wherever_they_lie(tmp_path: Path) -> None:
    """In folders with a number's name, too; one that was killed has left its lock, or nothing but its number."""
    sweep = tmp_path / "sweep"
    for name in ("4/s_0", "4/s_1", "16/s_0"):
        write_run(sweep / name, result(), extras=False)
    for name, file in (("16/s_1", RUNNING), ("64/0", "config.yaml")):
        (sweep / name).mkdir(parents=True)
        (sweep / name / file).touch()
    (sweep / MADE_BEFORE).parent.mkdir()
    stages = {"pretrain": {"key": "a" * 64, "reused": False, "seconds": 105.0}}
    (sweep / MADE_BEFORE).write_text(json.dumps({"schema": 1, "stages": stages}))
    for place in (sweep, tmp_path):
        found = results.read([place])
        assert [run.folder.relative_to(sweep).as_posix() for run in found.runs] == ["4/s_0", "4/s_1", "16/s_0"]
        assert [label.split("sweep/")[1] for label in found.unfinished] == ["16/s_1", "64/0"]
        assert [stage.seconds for stage in found.shared] == [105.0]


def test_the_seconds_of_a_run_say_what_was_made_before_and_how_long_that_took(tmp_path: Path) -> None:
    def label(*made_in: float | None) -> tuple[str, float | None]:
        stages = {
            str(number): {"key": "a" * 64, "reused": seconds is not None, "seconds": 0.5, "made_in": seconds or 0.5}
            for number, seconds in enumerate(made_in)
        }
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        (run,) = results.read([write_run(folder, result(stages=stages), extras=False)]).runs
        assert run.row()["stages.0.made_in"] == (made_in[0] or 0.5)
        return run.seconds_label, run.made_in

    assert label(None, None) == ("Seconds of this run", 1.0)
    assert label(1200.0, None) == ("Seconds of this run, which reused 1 of 2 stages", 1200.5)
    assert label(1200.0, 34.5) == ("Seconds of this run, which reused every stage", 1234.5)
    older = result(stages={"pretrain": {"key": "a" * 64, "reused": True, "seconds": 0.5}})
    (run,) = results.read([write_run(tmp_path / "older", older, extras=False)]).runs
    assert run.made_in is None


def test_what_a_sweep_made_before_its_cells_is_read_with_them(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "sweep", dims=((2, 2, 2),), shots=(16,), seeds=(0, 1))
    assert results.read([folder]).shared == ()
    stages = {"pretrain": {"key": "a" * 64, "reused": False, "seconds": 105.0}}
    path = folder / MADE_BEFORE
    path.parent.mkdir()
    path.write_text(json.dumps({"schema": 1, "stages": stages}))
    for place in (folder, tmp_path, folder / "0"):
        assert results.read([place]).shared == (results.Stage("pretrain", "a" * 64, False, 105.0),)
    path.write_text("{")
    damaged = results.read([folder])
    assert (len(damaged.runs), damaged.shared) == (2, ())
    assert [skipped.path for skipped in damaged.skipped] == [path]


def test_nothing_to_read_is_one_plain_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no result\.json here or below"):
        results.read([tmp_path])
    with pytest.raises(DataError, match="no such folder"):
        results.read([tmp_path / "absent"])


@pytest.mark.parametrize("number", ["NaN", "1e999", "1" * 400])
def test_a_number_that_no_run_writes_makes_a_result_unusable(number: str, tmp_path: Path) -> None:
    content = json.dumps(result() | {"seed": 77}).replace("77", number)
    folder = write_run(tmp_path / "run", result(), extras=False)
    (folder / "result.json").write_text(content)
    (skipped,) = results.read([folder]).skipped
    assert "not JSON" in skipped.reason


def test_captions_survive_damaged_rows_which_are_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    with (folder / "captions.jsonl").open("a") as file:
        file.write('{"id": 3, "references": ["a"]}\n{"id": "x", "refer')
    (run,) = results.read([folder]).runs
    rows, notes = results.read_captions(run)
    assert len(rows) == 6
    assert rows[1].references == ("flag germany",)
    assert rows[1].captions["locked"] == "flag france"
    assert len(notes) == 2
    assert "row 7" in notes[0]
    assert "row 8" in notes[1]


def test_a_drawing_is_read_only_from_its_own_folder(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", picture=PNG)
    (folder / "secret.png").write_bytes(PNG)
    (folder / "drawings" / "text.png").write_text("no picture")
    (run,) = results.read([folder]).runs
    assert results.drawing(run, "2764") == PNG
    for refused in ("../secret", "absent", "text", "/etc/passwd"):
        assert results.drawing(run, refused) is None
    assert results.drawing(run, "2764", most_bytes=10) is None


def test_curves_hold_each_metric_at_the_steps_that_have_it(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "stages" / "finetune" / "metrics.csv").write_text("step,loss,val_loss\n0,3.5,\n1,nan,2.0\n2,3.0,1.5\n")
    (run,) = results.read([folder]).runs
    curves, notes = results.curves(run)
    assert curves["finetune"] == {
        "loss": [(0.0, 3.5), (2.0, 3.0)],
        "val_loss": [(1.0, 2.0), (2.0, 1.5)],
    }
    assert notes == []


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\xff\xfe\x00", b"a,b,c\n", b"epoch,loss\n0,1.5\n", b"step,loss\n0,3.5\n1\n", b"step,loss\n0,3.5,9\n"),
        *(b"step,loss\n0,3.5\n,2.0\n", b"step,loss\n0,3.5\n1,three\n", b"step,loss\n0,3.5\n" + b"7" * 200_000),
    ],
)
def test_a_damaged_curve_is_named_and_the_rest_of_it_kept(content: bytes, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    damaged = folder / "stages" / "finetune" / "metrics.csv"
    damaged.write_bytes(content)
    (run,) = results.read([folder]).runs
    curves, notes = results.curves(run)
    assert notes == [f"{damaged}: damaged; what cannot be read of the curve is left out"]
    assert curves.get("finetune", {}).get("loss", [])[:1] == ([(0.0, 3.5)] if b"\n0,3.5" in content else [])
    assert f"{damaged}: damaged" in write_report([folder]).report.read_text()


def test_attention_of_the_wrong_shape_is_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    with (folder / "attention.jsonl").open("a") as file:
        file.write(json.dumps({"id": "bad", "words": ["a"], "grid": [2, 2], "weights": [[1.0]]}) + "\n")
        file.write(json.dumps({"id": "worse", "words": 3}) + "\n")
    (run,) = results.read([folder]).runs
    looks = results.read_attention(run)
    assert looks.keys() == {"1F469-1F3FD-200D-1F692", "1F1E9-1F1EA", "2764", "1F408-200D-2B1B"} | {
        "1F468-1F3FB-200D-1F33E",
        "1F6B4-1F3FF",
    }
    assert looks["2764"].grid == (4, 4)
    assert sum(looks["2764"].weights[0]) == pytest.approx(1.0)


def test_a_number_that_no_run_has_is_refused(tmp_path: Path) -> None:
    """The mean of such numbers is none."""
    folder = write_run(tmp_path / "run", result() | {"metrics": {"bleu2": 1e308}})
    (skipped,) = results.read([tmp_path]).skipped
    assert skipped.path == folder / "result.json"
    assert "metrics.bleu2=1e+308 is larger than any number of a run" in str(skipped.reason)
