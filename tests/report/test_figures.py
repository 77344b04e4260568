"""Figures: which settings and losses are drawn, where, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

from lockdec.report import results
from lockdec.report.figures import MOST_SERIES, learning_curves, of_study
from lockdec.report.study import Study
from tests.report.runs import result, run_of, write_run


def test_of_several_runs_the_losses_that_are_curves_are_drawn(tmp_path: Path) -> None:
    """A validation loss, unless it was measured but once."""
    labelled: list[tuple[str, results.Run]] = []
    for name, row in (("once", "2,3.0,1.5"), ("often", "2,3.0,1.5\n3,,1.0")):
        folder = write_run(tmp_path / name, result((2, 2, 2), 16, len(labelled)))
        for stage in (folder / "stages").iterdir():
            (stage / "metrics.csv").unlink()
        (folder / "stages" / "finetune" / "metrics.csv").write_text(f"step,loss,val_loss\n1,3.5,\n{row}\n")
        (run,) = results.read([folder]).runs
        labelled.append((name, run))
    (figure,) = learning_curves(labelled)
    assert [trace["name"] for trace in figure.traces] == ["loss, once", "val_loss, often"]


def test_a_figure_over_dimensions_has_each_setting_at_its_dimension() -> None:
    study = Study(
        [run_of(0.5 + 0.01 * d, (d, d, d), seed, shots) for d in (1, 4) for seed in (0, 1) for shots in (16, 64)]
    )
    figures = {figure.id: figure for figure in of_study(study)}
    assert {"dimension", "loss-to-full-size", "shots", "pareto", "forest"} - figures.keys() == {"pareto"}
    for trace in figures["dimension"].traces:
        drawn = [study.settings[number] for number in trace["settings"]]
        sizes = [setting.facet("cross_attention.d_k") for setting in drawn]
        assert sizes == [1, 4]
        assert [round(x) for x in trace["x"]] == sizes, "beside each other, but at their dimension"
        assert len({setting.facet("fewshot.shots") for setting in drawn}) == 1
    assert [trace["name"] for trace in figures["dimension"].traces] == ["16 shots", "64 shots"]


def test_more_series_than_a_figure_holds_are_counted() -> None:
    shots = [2**power for power in range(MOST_SERIES + 3)]
    study = Study([run_of(0.5, (d, d, d), 0, few) for d in (1, 4) for few in shots])
    figure = next(figure for figure in of_study(study) if figure.id == "dimension")
    assert len(figure.traces) == MOST_SERIES
    assert "3 more are in the settings table" in figure.caption


def test_one_setting_needs_no_figures() -> None:
    assert of_study(Study([run_of(0.5, seed=seed) for seed in range(3)])) == []
