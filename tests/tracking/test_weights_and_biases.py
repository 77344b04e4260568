"""Runs of Weights & Biases: which run of an agent is whose, and which files go along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lockdec.config.schema import LoggerConfig
from lockdec.tracking import weights_and_biases
from tests.tracking.wandb_server import wandb_server


def test_a_stage_does_not_take_the_place_of_the_agents_run(online: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`wandb agent` names its run in the environment; only the run of the cell is that run."""
    online.setenv("WANDB_RUN_ID", "agents1")
    online.setenv("WANDB_SWEEP_ID", "sweep1")
    weights_and_biases.from_agent.cache_clear()
    config = LoggerConfig(kinds=["wandb"], mode="online", project="p")
    with wandb_server() as server:
        online.setenv("WANDB_BASE_URL", server.url)
        for job_type in ("finetune", weights_and_biases.CELL):
            weights_and_biases.open_run(config, "g", "0", job_type, tmp_path).finish()
    weights_and_biases.from_agent.cache_clear()
    found = {told["jobType"]: (name, told.get("sweep")) for name, told in server.runs.items()}
    assert found["cell"] == ("agents1", "sweep1")
    assert found["finetune"][0] != "agents1"
    assert found["finetune"][1] is None


class Recorded:
    """What is logged to a run of W&B."""

    def __init__(self, refuses: bool = False) -> None:
        self.config = {"key": "0123456789abcdef", "parents": {"pretrain": "a"}}
        self.tables: list[Any] = []
        self.artifacts: list[Any] = []
        self.refuses = refuses
        self.dir = "outputs/wandb/offline-run-1/files"

    def log(self, what: dict[str, Any]) -> None:
        if self.refuses:
            raise OSError("the connection is gone")
        self.tables.append(what["captions"])

    def log_artifact(self, artifact: Any) -> None:
        self.artifacts.append(artifact)


def artifact_of(folder: Path) -> Path:
    rows = [
        {"id": "a", "references": ["one", "two"], "caption": "three"},
        {"id": "b", "references": ["four"], "caption": "five"},
    ]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "cross_attention.safetensors").write_bytes(b"weights")
    (folder / "cross_attention.json").write_text("{}")
    (folder / "notes.txt").write_text("not part of the weights")
    return folder


def test_captions_are_a_table_with_a_row_each(tmp_path: Path) -> None:
    run: Any = Recorded()
    weights_and_biases.log_files(run, artifact_of(tmp_path), "finetune", weights=False)
    (table,) = run.tables
    assert table.columns == ["drawing", "id", "references", "caption"]
    assert table.data == [[None, "a", "one / two", "three"], [None, "b", "four", "five"]]
    assert not run.artifacts


def test_weights_are_uploaded_only_if_wanted_under_the_name_of_stage_and_key(tmp_path: Path) -> None:
    run: Any = Recorded()
    weights_and_biases.log_files(run, artifact_of(tmp_path), "finetune", weights=True)
    (artifact,) = run.artifacts
    assert (artifact.name, artifact.type) == ("finetune-0123456789ab", "finetune")
    assert set(artifact.manifest.entries) == {"cross_attention.safetensors", "cross_attention.json"}
    assert artifact.metadata == run.config


def test_files_that_cannot_be_sent_fail_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run: Any = Recorded(refuses=True)
    weights_and_biases.log_files(run, artifact_of(tmp_path), "finetune", weights=True)
    assert "W&B refused the files of finetune (the connection is gone)" in capsys.readouterr().out
