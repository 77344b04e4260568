"""Figures: which settings and losses are drawn, where, and what is said of the rest."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from lockdec.report import results
from lockdec.report.figures import MOST_SERIES, Figure, learning_curves, of_study
from lockdec.report.results import Run
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
    (figure,), _ = learning_curves(labelled)
    assert [trace["name"] for trace in figure.traces] == ["loss, once", "val_loss, often"]


def curve_of(folder: Path, stage: str, table: str) -> results.Run:
    """A run whose only learning curve is this table."""
    write_run(folder)
    for one in (folder / "stages").iterdir():
        (one / "metrics.csv").unlink()
    (folder / "stages" / stage).mkdir(exist_ok=True)
    (folder / "stages" / stage / "metrics.csv").write_text(table)
    return results.read([folder]).runs[0]


def test_what_was_measured_once_is_no_curve(tmp_path: Path) -> None:
    assert learning_curves([("", curve_of(tmp_path / "run", "evaluate", "step,evaluate/metrics/loss\n0,1.5\n"))]) == (
        [],
        [],
    )


def test_a_noisy_loss_is_smoothed_with_the_measured_one_behind(tmp_path: Path) -> None:
    """A loss that falls by one each step and jumps by 5 up and down around that."""
    values = [1000 - step + 5 * (-1) ** step for step in range(300)]
    rows = "".join(f"{step},{value}\n" for step, value in enumerate(values))
    (figure,), _ = learning_curves([("", curve_of(tmp_path / "run", "pretrain", "step,loss\n" + rows))])
    raw, smooth = figure.traces
    assert raw["y"] == values
    assert raw["opacity"] < 1
    assert not raw["showlegend"]
    middle = [value + step - 1000 for step, value in enumerate(smooth["y"])][10:-10]
    assert max(map(abs, middle)) < 0.5
    assert smooth["y"][0] == values[0], "the start is not bent down by what comes after it"
    assert "Thin lines: as measured" in figure.caption


def test_curves_of_a_sweep_are_named_once_for_each_artifact(tmp_path: Path) -> None:
    shared = {"key": "a" * 64, "reused": True, "seconds": 0.0}
    runs = []
    for number, label in enumerate(("d 4 \u00b7 seed 0", "d 8 \u00b7 seed 0")):
        stages = {"pretrain": shared, "finetune": {"key": f"{number}" * 64, "reused": False, "seconds": 1.0}}
        folder = write_run(tmp_path / str(number), result((4, 4, 4), 16, number) | {"stages": stages})
        runs.append((label, results.read([folder]).runs[0]))
    (finetune, pretrain), _ = learning_curves(runs)
    assert [trace["name"] for trace in pretrain.traces if trace.get("showlegend", True)] == ["val/loss"]
    named = [trace["name"] for trace in finetune.traces if trace.get("showlegend", True)]
    assert named == ["d 4 \u00b7 seed 0", "d 8 \u00b7 seed 0"], "which loss it is stands once, at the axis"
    assert finetune.layout["yaxis"]["title"]["text"] == "val/loss"


def test_settings_of_similar_size_have_ticks_to_read_and_room_at_the_ends() -> None:
    study = Study([run_of(0.5 + 0.01 * d, (d, d, d), parameters=110_000 + 20_000 * d) for d in (1, 2, 4, 8)])
    axis = next(figure for figure in of_study(study) if figure.id == "pareto").layout["xaxis"]
    assert axis["ticktext"] == ["100k", "200k"]
    low, high = axis["range"]
    assert 10**low < 0.9 * 130_000
    assert 10**high > 1.1 * 270_000


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


def bridges(*kinds: str, parameters: int = 50_000) -> list[Run]:
    """Runs of three seeds for each bridge, with 64 and 256 pairs."""
    return [
        run_of(0.5, (2, 2, 2), seed, shots, parameters, also={"bridge.kind": kind, "bridge.wanted": 50_000})
        for kind in kinds
        for seed in range(3)
        for shots in (64, 256)
    ]


def test_many_choices_stand_below_each_other_where_their_names_have_room() -> None:
    def of(*kinds: str) -> Figure:
        return next(f for f in of_study(Study(bridges(*kinds))) if f.title == "Bridge side by side")

    few, many = of("full", "lora"), of("full", "lora", "prefix_linear", "prefix_mlp", "resampler")
    assert few.layout["xaxis"]["ticktext"] == ["full", "lora"]
    assert many.layout["yaxis"]["ticktext"] == ["full", "lora", "prefix_linear", "prefix_mlp", "resampler"]
    bottom, top = many.layout["yaxis"]["range"]
    assert bottom > top, "the first is at the top"
    for trace in many.traces:
        assert trace["fill"] == "x"
        assert [round(y) for y in trace["y"]] == [0, 1, 2, 3, 4]
    assert [trace["name"] for trace in many.traces] == ["64 shots", "256 shots"]


def test_whiskers_of_many_series_stay_near_their_place() -> None:
    """Eight bridges at two numbers of pairs: a tenth of the axis for all of them."""
    study = Study(bridges(*(f"bridge{number}" for number in range(8))))
    figure = next(figure for figure in of_study(study) if figure.id == "shots")
    low, high = figure.layout["xaxis"]["range"]
    first, last = figure.traces[0]["x"], figure.traces[-1]["x"]
    assert math.log10(last[0] / first[0]) == pytest.approx(0.07 * (high - low))
    assert first[0] * last[0] == pytest.approx(64**2)


def test_what_trains_nothing_has_no_place_on_a_log_axis_of_parameters() -> None:
    study = Study([*bridges("lora"), *bridges("full", parameters=100_000), *bridges("retrieval", parameters=0)])
    figure = next(figure for figure in of_study(study) if figure.id == "pareto")
    assert "train nothing are left out" in figure.caption
    assert all(x > 0 for trace in figure.traces for x in trace["x"])
    assert all(setting.parameters for setting in study.front("token_f1", "score"))


def test_one_setting_needs_no_figures() -> None:
    assert of_study(Study([run_of(0.5, seed=seed) for seed in range(3)])) == []
