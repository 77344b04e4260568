"""What the first rank orders, the others do: orders given here are followed here, without ranks of their own.

Real ranks are started by tests/faults.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lockdec.console import console
from lockdec.distributed import ranks
from lockdec.pipeline.following import follow, lead
from lockdec.runtime.interruption import InterruptedRunError
from lockdec.stages.unlock import Unlock
from lockdec.store import Artifact
from tests.conftest import TinyRun, composed


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was ordered and not followed yet."""
    waiting: list[dict[str, Any]] = []
    monkeypatch.setattr(ranks, "order", waiting.append)
    monkeypatch.setattr(ranks, "next_order", lambda: waiting.pop(0))
    monkeypatch.setattr(console, "quiet", True)
    return waiting


def test_the_objective_of_the_first_rank_is_that_of_all(orders: list[dict[str, Any]], tmp_path: Path) -> None:
    for value in (0.25, math.nan):
        assert lead(partial(float, value), tmp_path) == pytest.approx(value, nan_ok=True)
        assert follow(composed("debug=tiny"), tmp_path) == pytest.approx(value, nan_ok=True)
    assert orders == []


@pytest.mark.parametrize(("error", "status"), [(ValueError("x"), 1), (InterruptedRunError(signal.SIGTERM), 143)])
def test_a_failure_of_the_first_rank_ends_the_others_with_its_status(
    error: Exception, status: int, orders: list[dict[str, Any]], tmp_path: Path
) -> None:
    def work() -> float:
        raise error

    with pytest.raises(type(error)):
        lead(work, tmp_path)
    with pytest.raises(SystemExit) as ended:
        follow(composed("debug=tiny"), tmp_path)
    assert ended.value.code == status


def test_a_stage_is_made_together_from_the_parents_that_the_first_rank_names(
    orders: list[dict[str, Any]],
    tiny: TinyRun,
    made: Mapping[str, Artifact],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Into a folder that is thrown away; the folder that Hydra made for the follower is removed."""
    seen: list[tuple[dict[str, str], bool, Path]] = []
    make = Unlock.make

    def recorded(stage: Unlock, work: Any) -> dict[str, Any]:
        metrics = make(stage, work)
        parents = {name: artifact.key for name, artifact in work.parents.items()}
        seen.append((parents, (work.folder / "cross_attention.safetensors").is_file(), work.folder))
        return metrics

    monkeypatch.setattr(Unlock, "make", recorded)
    parents = {name: made[name] for name in ("pretrain", "attach")}

    def work() -> float:
        folders = {name: str(artifact.folder) for name, artifact in parents.items()}
        ranks.order({"make": "unlock", "parents": folders, "logged": False})
        return 0.5

    lead(work, tmp_path / "leader")
    (tmp_path / "follower").mkdir()
    assert follow(composed("debug=tiny", f"paths.outputs={tiny.outputs}"), tmp_path / "follower") == 0.5
    ((found, written, folder),) = seen
    assert found == {name: artifact.key for name, artifact in parents.items()}
    assert written
    assert not folder.exists()
    assert not (tmp_path / "follower").exists()
