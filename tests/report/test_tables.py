"""results.csv and results.json: one row a run, under the names of result.json."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from lockdec.report import results
from lockdec.report.results import Collection
from lockdec.report.study import Study
from lockdec.report.tables import results_csv, results_json
from tests.report.runs import result, run_of, write_run, write_sweep


def test_the_csv_has_a_row_for_every_run_under_the_names_of_result_json(tmp_path: Path) -> None:
    write_sweep(tmp_path / "s", dims=((2, 2, 2),), shots=(16,), seeds=(0,))
    write_run(
        tmp_path / "s" / "1",
        {"schema": 1, "status": "failed", "error": 'a "b"\nc', "name": "x"},
        extras=False,
    )
    rows = list(csv.DictReader(io.StringIO(results_csv(results.read([tmp_path / "s"]).runs))))
    written = result((2, 2, 2), 16, 0)
    assert [row["status"] for row in rows] == ["ok", "failed"]
    assert float(rows[0]["metrics.token_f1"]) == written["metrics"]["token_f1"]
    assert int(rows[0]["cross_attention.parameters"]) == written["cross_attention"]["parameters"]
    assert rows[0]["stages.pretrain.reused"] == "true"
    assert rows[1]["error"] == 'a "b"\nc'
    assert rows[1]["metrics.token_f1"] == ""


def test_the_csv_has_what_was_swept_and_is_in_no_result() -> None:
    runs = [
        run_of(0.5, seed=0, overrides=("encoder.size=16", "+mine.rate=2", "finetune.steps=9", "seed=0", "name=a")),
        run_of(0.6, seed=1, overrides=("encoder.size=32", "finetune.steps=9", "seed=1", "name=b")),
    ]
    rows = list(csv.DictReader(io.StringIO(results_csv(runs))))
    assert [(row["encoder.size"], row["mine.rate"]) for row in rows] == [("16", "2"), ("32", "")]
    assert list(rows[0])[-2:] == ["encoder.size", "mine.rate"]


def test_findings_name_settings_by_their_place_in_the_list() -> None:
    """Paired by seed, d = 4 loses 0.01, which is enough, and d = 2 loses 0.1, which is not."""
    losses = {8: (0.0, 0.0, 0.0), 4: (0.009, 0.01, 0.011), 2: (0.099, 0.1, 0.101)}
    runs = [
        run_of(0.7 + 0.01 * seed - loss, (d, d, d), seed)
        for d, several in losses.items()
        for seed, loss in enumerate(several)
    ]
    content = json.loads(results_json(Collection(tuple(runs), (), ()), Study(runs)))
    sizes = [setting["cross_attention.d_k"] for setting in content["settings"]]
    assert sorted(sizes) == [2, 4, 8]
    assert [sizes[setting["full_size"]] for setting in content["settings"]] == [8, 8, 8]
    (finding,) = content["how_low"]
    assert (sizes[finding["smallest"]], finding["smallest_value"]) == (4, 4)
    lost = {sizes[loss["setting"]]: loss["mean"] for loss in finding["losses"]}
    assert {size: round(mean, 9) for size, mean in lost.items() if size < 8} == {4: -0.01, 2: -0.1}
    assert [len(setting["runs"]) for setting in content["settings"]] == [3, 3, 3]
