"""What a store contains, and what can be removed without harm to a run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from lockdec.errors import StoreError
from lockdec.store import Store
from lockdec.store.keeping import DAY, entries, leftovers, problems, remove, unreferred
from lockdec.store.locking import locked

KEYS = {"pretrain": "a" * 64, "finetune": "b" * 64, "unlock": "c" * 64}


def make(folder: Path) -> dict[str, Any]:
    (folder / "weights").write_bytes(b"0123456789")
    return {}


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """A store with a decoder, one finetuned from it for a run, and one that no run refers to; all two days old."""
    store = Store(tmp_path / "stages")
    for stage, parents in (("pretrain", {}), ("finetune", {"pretrain": KEYS["pretrain"]}), ("unlock", {})):
        folder = store.get_or_make(stage, KEYS[stage], make, config={}, parents=parents).folder
        os.utime(folder, (time.time() - 2 * DAY,) * 2)
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    (run / "result.json").write_text(json.dumps({"stages": {"finetune": {"key": KEYS["finetune"]}}}))
    return tmp_path


def test_a_run_keeps_what_it_refers_to_and_the_parents_of_that(outputs: Path) -> None:
    listed = entries(outputs)
    users = {entry.stage: [Path(run).name for run in entry.runs] for entry in listed}
    assert users == {"finetune": ["first"], "pretrain": ["first"], "unlock": []}
    assert [entry.stage for entry in unreferred(listed, [], DAY, referred=False)] == ["unlock"]
    assert unreferred(listed, [], 3 * DAY, referred=False) == []
    assert unreferred(listed, ["unlock/*"], DAY, referred=False) == []
    assert len(unreferred(listed, [], DAY, referred=True)) == 3


def test_an_unfinished_artifact_is_a_leftover_unless_a_process_works_on_it(outputs: Path) -> None:
    folder = outputs / "stages" / "pretrain" / ("d" * 64 + ".unfinished")
    folder.mkdir()
    os.utime(folder, (time.time() - 2 * DAY,) * 2)
    assert [entry.folder for entry in leftovers(outputs, entries(outputs), DAY)] == [folder]
    assert leftovers(outputs, entries(outputs), 3 * DAY) == []
    with locked(outputs / "stages" / ".locks" / f"pretrain-{'d' * 64}"):
        assert leftovers(outputs, entries(outputs), DAY) == []


def test_what_is_removed_is_gone_and_what_is_damaged_is_named(outputs: Path) -> None:
    listed = {entry.stage: entry for entry in entries(outputs)}
    remove(outputs, listed["unlock"])
    (listed["pretrain"].folder / "weights").write_bytes(b"0123456780")
    assert [(entry.stage, problem) for entry, problem in problems(outputs, entries(outputs))] == [
        ("pretrain", "weights")
    ]


def test_without_knowing_what_a_run_refers_to_nothing_is_listed(outputs: Path) -> None:
    (outputs / "runs" / "first" / "result.json").write_text("{")
    with pytest.raises(StoreError, match=r"result\.json: not JSON"):
        entries(outputs)


def test_a_run_that_was_moved_behind_a_link_keeps_what_it_refers_to(outputs: Path) -> None:
    """People move old runs to another disk; a link may also lead back to where it is."""
    (outputs / "runs" / "first").rename(outputs / "moved")
    (outputs / "runs" / "first").symlink_to(outputs / "moved")
    (outputs / "runs" / "again").symlink_to(outputs / "runs")
    users = {entry.stage: [Path(run).name for run in entry.runs] for entry in entries(outputs)}
    assert users == {"finetune": ["first"], "pretrain": ["first"], "unlock": []}


@pytest.mark.parametrize("name", ["runs", "runs/first"])
def test_where_a_link_leads_nowhere_nothing_is_listed(name: str, outputs: Path) -> None:
    (outputs / name).rename(outputs / "moved")
    (outputs / name).symlink_to(outputs / "unmounted")
    with pytest.raises(StoreError, match=rf"{name}: a link that leads nowhere"):
        entries(outputs)


def test_further_runs_have_to_be_there(outputs: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere: no folder with runs"):
        entries(outputs, [outputs / "nowhere"])


def test_what_is_no_run_is_not_looked_into(outputs: Path) -> None:
    """W&B, editors and submitit leave such links and folders."""
    (outputs / "runs" / "first" / "latest-run").symlink_to("nowhere")
    (outputs / "runs" / ".#notes").symlink_to("me@here:1")
    (outputs / "runs" / ".submitit").mkdir()
    (outputs / "runs" / ".submitit" / "log").symlink_to("nowhere")
    assert len(entries(outputs)) == 3
