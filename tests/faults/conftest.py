"""What the fault tests share: one undisturbed run to compare with."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lockdec.store.reading import read_config
from tests.faults.causes import Fault
from tests.faults.warm import Command, Warm


@pytest.fixture(scope="session")
def undisturbed(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A finished run that met no fault; tests read it and leave it as it is."""
    return warm.run(tmp_path_factory.mktemp("undisturbed") / "outputs", fault=Fault(stage="*"))


def bring(command: Command, outputs: Path, *stages: str) -> None:
    """Copy what a command has made in these stages into the store of other outputs."""
    for stage in stages:
        shutil.copytree(command.outputs / "stages" / stage, outputs / "stages" / stage)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that is there when something in a stranger's file has run."""
    return tmp_path / "payload-has-run"


def with_encoder(command: Command, folder: Path, **settings: Any) -> Path:
    """A copy of the run with another encoder in its config, beside the store of the run."""
    run = command.outputs / "runs" / folder.name
    shutil.copytree(command.folder, run)
    config = read_config(run / "config.yaml")
    config["stages"]["attach"]["encoder"] = settings
    (run / "config.yaml").write_text(json.dumps(config))
    return run


STAGES = ("pretrain", "attach", "unlock", "finetune", "prior", "evaluate")


def up_to(stage: str) -> str:
    """The override for a run that ends with a stage."""
    return f"pipeline.order=[{','.join(STAGES[: STAGES.index(stage) + 1])}]"


def contents(command: Command) -> dict[str, dict[str, str]]:
    """The sha256 of every file of every artifact that a run has made or reused, by stage and name.

    Of artifact.json the hashes of the files count, and not how long making them took.
    """
    files = {}
    for stage, entry in command.result["stages"].items():
        folder = command.outputs / "stages" / stage / entry["key"]
        record = json.loads((folder / "artifact.json").read_text())
        files[stage] = {name: file["sha256"] for name, file in record["files"].items()}
        assert files[stage] == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files[stage]}
    return files


def essence(command: Command) -> dict[str, Any]:
    """What must not depend on what happened on the way: metrics, captions, and the contents of the artifacts."""
    result = command.result
    same = ("status", "error", "metrics", "controls", "gap_over_prior", "looking", "parameters", "unlock", "frozen")
    captions = (command.folder / "captions.jsonl").read_text()
    return {"files": contents(command), "captions": captions} | {name: result[name] for name in same}


def leftovers(outputs: Path) -> list[str]:
    """Files of attempts: partial, unfinished, checkpoints, set aside; and locks by other names than artifacts."""
    odd = [
        path
        for path in outputs.rglob("*")
        if path.name.endswith((".partial", ".unfinished", ".ckpt")) or ".damaged-" in path.name
    ]
    hidden = [path for path in outputs.rglob(".*") if path.name != ".locks"]
    return sorted(str(path) for path in {*odd, *hidden})
