"""Whole runs over stores of others, and into folders of earlier runs."""

from __future__ import annotations

from pathlib import Path

from lockdec.store import METADATA
from lockdec.sweeps.plan import plan
from tests.conftest import TinyRun, composed, run_over, run_tiny


def test_a_run_uses_the_stages_of_others_from_where_they_are(tiny: TinyRun, tmp_path: Path) -> None:
    shared, outputs = tiny.own, tmp_path / "it's mine (1)"
    before = {path: path.stat().st_mtime_ns for path in shared.glob("*/*")}
    layer = f"paths.stores=[{shared}]"
    config = composed("debug=tiny", layer)
    config.paths.outputs = str(outputs)
    assert {name: stage.made for name, stage in plan([(None, config)]).stages.items()} == dict.fromkeys(
        tiny.result["stages"], 0
    )
    found = run_tiny(outputs.with_name("mine"), "over", layer)
    assert {name: entry["key"] for name, entry in found.result["stages"].items()} == {
        name: entry["key"] for name, entry in tiny.result["stages"].items()
    }
    assert all(entry["reused"] for entry in found.result["stages"].values())
    assert found.result["metrics"] == tiny.result["metrics"]
    assert not list(found.outputs.glob(f"stages/*/*/{METADATA}"))
    assert {path: path.stat().st_mtime_ns for path in shared.glob("*/*")} == before


def test_a_run_into_the_folder_of_another_leaves_nothing_of_that(tiny: TinyRun, tmp_path: Path) -> None:
    first = run_over(tiny, tmp_path, "same")
    curve = first.folder / "stages" / "finetune" / "metrics.csv"
    assert (
        curve.read_bytes()
        == (tiny.own / "finetune" / first.result["stages"]["finetune"]["key"] / "metrics.csv").read_bytes()
    )
    again = run_over(tiny, tmp_path, "same", "seed=4711", "pipeline.order=[pretrain,attach,unlock,finetune]")
    own = tmp_path / "stages" / "finetune" / again.result["stages"]["finetune"]["key"] / "metrics.csv"
    assert curve.read_bytes() == own.read_bytes()
    run_over(tiny, tmp_path, "same", "pipeline.order=[pretrain]")
    assert not curve.exists()
