"""Loggers: what W&B, TensorBoard and CSV are told, without an account: read back from disk and from the loopback."""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.util import get_core_path

from lockdec.tracking import weights_and_biases
from lockdec.tracking.loggers import flat
from tests.conftest import TinyRun, run_over, run_tiny
from tests.tracking.wandb_server import wandb_server

QUICK = ("data.limit=64", "~text.sources.wikipedia", "finetune.steps=20", "cross_attention.unlock=rezero")
STAGES = ["pretrain", "attach", "unlock", "finetune", "prior", "evaluate"]


@dataclass(frozen=True)
class OfflineRun:
    """One W&B run as `wandb leet inspect` reads it back; rows without what W&B adds to them."""

    config: dict[str, Any]
    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    records: list[dict[str, Any]]
    group: str

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record[kind] for record in self.records if record["type"] == kind]


def leet(file: Path, *options: str) -> str:
    """What `wandb leet inspect` prints, by the program that it starts."""
    command = [get_core_path(), "leet", "inspect", "--json", *options, "--run-file", str(file), str(file.parents[1])]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout


def offline_runs(outputs: Path) -> dict[str, OfflineRun]:
    """The offline runs below a folder of outputs, by their job type."""
    found = {}
    for file in sorted(outputs.glob("wandb/offline-run-*/*.wandb")):
        whole = json.loads(leet(file, "--summary"))
        records = [json.loads(line) for line in leet(file).splitlines()]
        items = [record["history"]["item"] for record in records if record["type"] == "history"]
        rows = [{name: value for name, value in item.items() if not name.startswith("_")} for item in items]
        about = next(record["run"] for record in records if record["type"] == "run")
        assert about["job_type"] not in found
        found[about["job_type"]] = OfflineRun(whole["config"], whole["summary"], rows, records, about["run_group"])
    return found


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A run with all loggers and with gates, W&B offline."""
    options = ("logger.kinds=[csv,wandb,tensorboard]", "logger.log_artifacts=true")
    return run_tiny(tmp_path_factory.mktemp("tracked"), "tracked", *QUICK, *options)


@pytest.fixture(scope="module")
def offline(tracked: TinyRun) -> dict[str, OfflineRun]:
    return offline_runs(tracked.outputs)


def test_each_executed_stage_has_a_run_and_the_cell_links_them(
    tracked: TinyRun, offline: dict[str, OfflineRun]
) -> None:
    assert set(offline) == {*STAGES, "cell"}
    assert {run.group for run in offline.values()} == {"tracked"}
    keys = {name: entry["key"] for name, entry in tracked.result["stages"].items()}
    assert {name: offline[name].config["key"] for name in STAGES} == keys
    assert offline["finetune"].config["parents"] == {name: keys[name] for name in ("pretrain", "attach", "unlock")}
    linked = offline["cell"].config["stages"]
    assert {name: entry["key"] for name, entry in linked.items()} == keys
    assert offline["evaluate"].config["cross_attention"]["d_k"] == 2  # two stages up, for grouping
    assert "cross_attention" not in offline["pretrain"].config


def test_a_reused_stage_is_linked_and_not_logged_again(tracked: TinyRun, offline: dict[str, OfflineRun]) -> None:
    assert offline  # which reads the runs before there is one more
    before = len(list(tracked.outputs.glob("wandb/offline-run-*")))
    options = (*QUICK, "cross_attention.d_v=1", "logger.kinds=[wandb]")
    run_tiny(tracked.outputs, "again", *options, "pipeline.order=[pretrain,attach,unlock]")
    files = sorted(tracked.outputs.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)
    assert len(files) == before + 2  # unlock and the cell
    cells = [config for file in files[before:] if "stages" in (config := json.loads(leet(file, "--summary"))["config"])]
    assert [{name: entry["reused"] for name, entry in cell["stages"].items()} for cell in cells] == [
        {"pretrain": True, "attach": True, "unlock": False}
    ]


def test_the_rows_of_the_cell_are_those_of_result_json(tracked: TinyRun, offline: dict[str, OfflineRun]) -> None:
    (row,) = offline["cell"].rows
    for section in ("metrics", "controls", "gap_over_prior", "looking", "parameters", "unlock"):
        for name, value in flat(tracked.result[section], section).items():
            assert row[name] == pytest.approx(value), name
    assert row["cost/seconds"] == pytest.approx(tracked.result["cost"]["seconds"], abs=30)
    measured = [row for row in offline["evaluate"].rows if "evaluate/metrics/token_f1" in row]
    assert [row["evaluate/metrics/token_f1"] for row in measured] == [tracked.result["metrics"]["token_f1"]]


def test_pictures_of_an_offline_table_wait_beside_its_run(tracked: TinyRun, offline: dict[str, OfflineRun]) -> None:
    """Not in the home folder, where W&B would keep them: they leave with the outputs."""
    tables = [record for record in offline["evaluate"].of("artifact") if record["type"] == "run_table"]
    [files] = [record["manifest"]["contents"] for record in tables]
    pictures = [Path(file["local_path"]) for file in files if file["path"].endswith(".png")]
    assert len(pictures) == len((tracked.folder / "captions.jsonl").read_text().splitlines())
    for picture in pictures:
        assert picture.is_relative_to(tracked.outputs.resolve() / "wandb")
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_curves_have_a_step_and_a_best_value(offline: dict[str, OfflineRun]) -> None:
    run = offline["finetune"]
    losses = {row["trainer/global_step"]: row["finetune/loss"] for row in run.rows if "finetune/loss" in row}
    assert list(losses) == [9, 19]
    assert run.summary["finetune/loss"] == {"min": pytest.approx(min(losses.values()))}
    defined = {metric.get("name"): metric for metric in run.of("metric")}
    assert defined["finetune/val_loss"]["step_metric"] == "trainer/global_step"
    assert defined["finetune/accuracy"]["summary"] == {"max": True}


def test_training_is_watched(offline: dict[str, OfflineRun]) -> None:
    names = {name for row in offline["finetune"].rows for name in row}
    watched = {"loss", "val_loss", "learning_rate", "gradient_norm", "tokens_per_second"}
    watched |= {"attention_entropy", "cross_to_residual_norm", "gate/0", "gate/1"}
    assert {f"finetune/{name}" for name in watched} <= names
    pretrain = {name for row in offline["pretrain"].rows for name in row}
    assert {f"pretrain/{name}" for name in ("loss", "learning_rate", "gradient_norm", "tokens_per_second")} <= pretrain


def test_watching_changes_nothing(tracked: TinyRun, tmp_path: Path) -> None:
    """The same run without loggers, from an empty store, ends with the same bits."""
    plain = run_tiny(tmp_path, "plain", *QUICK)
    for stage, file in (("pretrain", "decoder"), ("finetune", "cross_attention")):
        entries = [run.result["stages"][stage]["key"] for run in (tracked, plain)]
        assert entries[0] == entries[1]
        for name in (f"{file}.safetensors", "metrics.csv"):
            left, right = (run.outputs / "stages" / stage / entries[0] / name for run in (tracked, plain))
            assert left.read_bytes() == right.read_bytes(), name


def test_captions_and_weights_are_uploaded(tracked: TinyRun, offline: dict[str, OfflineRun]) -> None:
    table = offline["evaluate"].summary["captions"]
    assert (table["_type"], table["nrows"]) == ("table-file", tracked.result["data"]["test"])
    (file,) = tracked.outputs.glob("wandb/offline-run-*/files/media/table/captions*.json")
    content = json.loads(file.read_text())
    said = [json.loads(line) for line in (tracked.folder / "captions.jsonl").read_text().splitlines()]
    assert [row[content["columns"].index("caption")] for row in content["data"]] == [row["caption"] for row in said]
    (artifact,) = offline["evaluate"].of("artifact")
    kept = [Path(entry["path"]).name for entry in artifact["manifest"]["contents"]]
    assert {path.name for path in (tracked.folder / "drawings").iterdir()} <= set(kept)
    (weights,) = offline["finetune"].of("artifact")
    assert weights["name"] == f"finetune-{tracked.result['stages']['finetune']['key'][:12]}"
    assert weights["type"] == "finetune"


def test_all_loggers_use_the_same_names(tracked: TinyRun, offline: dict[str, OfflineRun]) -> None:
    for stage in STAGES:
        with (tracked.folder / "stages" / stage / "metrics.csv").open() as file:
            in_csv = set(next(csv.reader(file)))
        in_wandb = {name for row in offline[stage].rows for name in row}
        events = EventAccumulator(str(tracked.folder / "tensorboard" / stage))
        events.Reload()
        in_tensorboard = set(events.Tags()["scalars"])
        ours = {name for name in in_wandb if name.startswith(f"{stage}/")}
        assert ours, stage
        for others in (in_csv, in_tensorboard):
            assert {name for name in others if name.startswith(f"{stage}/")} == ours, stage


def test_an_online_run_delivers_the_same_rows(tiny: TinyRun, tmp_path: Path, online: pytest.MonkeyPatch) -> None:
    with wandb_server() as server:
        online.setenv("WANDB_BASE_URL", server.url)
        options = ("evaluate.max_new_tokens=11", "logger.kinds=[wandb]", "logger.mode=online")
        run = run_over(tiny, tmp_path, "online", *options)
    assert sorted(told["jobType"] for told in server.runs.values()) == ["cell", "evaluate"]
    assert {told["groupName"] for told in server.runs.values()} == {"online"}
    (row,) = server.rows_of("cell")
    for section in ("metrics", "controls", "gap_over_prior"):
        for name, value in flat(run.result[section], section).items():
            assert row[name] == pytest.approx(value), name
    (scores, captions) = server.rows_of("evaluate")
    assert scores["evaluate/metrics/token_f1"] == pytest.approx(run.result["metrics"]["token_f1"])
    assert captions["captions"]["nrows"] == run.result["data"]["test"]
    assert not server.unknown


def test_without_network_an_online_run_continues_offline(
    tiny: TinyRun, tmp_path: Path, online: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        online.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        online.setattr(weights_and_biases, "START_TIMEOUT", 2.0)
        started = time.monotonic()
        options = ("evaluate.max_new_tokens=10", "logger.kinds=[wandb]", "logger.mode=online")
        run = run_over(tiny, tmp_path, "unreachable", *options)
    assert time.monotonic() - started < 90
    assert run.result["status"] == "ok"
    told = [line for line in capsys.readouterr().out.splitlines() if "W&B" in line]
    assert len(told) == 1, told  # the second run of the two does not wait again
    assert "logging offline" in told[0]
    found = offline_runs(tmp_path)
    assert found["cell"].rows[0]["metrics/token_f1"] == pytest.approx(run.result["metrics"]["token_f1"])


def test_disabled_leaves_nothing(tiny: TinyRun, tmp_path: Path) -> None:
    options = ("evaluate.max_new_tokens=9", "logger.kinds=[wandb]", "logger.mode=disabled")
    assert run_over(tiny, tmp_path, "disabled", *options).result["status"] == "ok"
    assert not list(tmp_path.glob("wandb/*"))
