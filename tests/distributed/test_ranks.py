"""Which rank a process is, and what a single process answers. Real ranks are started by tests/faults."""

from __future__ import annotations

import pytest
import torch

from lockdec.distributed import ranks
from lockdec.distributed.ranks import LostRankError, Started, started

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
SRUN = {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN | SRUN:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("environment", [TORCHRUN, SRUN], ids=["torchrun", "srun"])
def test_the_environment_says_which_rank_this_is(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert started() == Started(rank=3, world=4, local=1, nearby=2)


@pytest.mark.parametrize("changes", [{"SLURM_NTASKS": "1"}, {"SLURM_STEP_ID": None}], ids=["one task", "batch script"])
def test_one_task_of_slurm_is_a_single_process(changes: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (SRUN | changes).items():
        if value is not None:
            monkeypatch.setenv(name, value)
    assert started() == Started(rank=0, world=1, local=0, nearby=1)


def test_a_single_process_answers_for_itself() -> None:
    with ranks.together():
        assert (ranks.rank(), ranks.world(), ranks.several(), ranks.follows()) == (0, 1, False, False)
        assert ranks.agree({"a": 1}) == {"a": 1}
        assert ranks.highest(3) == 3
        rows, weight = ranks.share(torch.ones(4, 5, dtype=torch.bool))
    assert (list(range(4))[rows], weight) == ([0, 1, 2, 3], 1.0)


def test_an_error_that_all_agree_on_does_not_break_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_broken", False)
    monkeypatch.setattr(ranks, "_started", Started(0, 2, 0, 2))
    with pytest.raises(ranks.FollowedError), ranks.together():
        raise ranks.FollowedError
    assert not ranks.broken()
    with pytest.raises(ValueError, match="x"), ranks.together():
        raise ValueError("x")
    assert ranks.broken()
    assert not ranks.several()


def test_only_a_backend_that_lost_its_peer_is_a_lost_rank() -> None:
    assert isinstance(ranks.lost(RuntimeError("[gloo/transport] Connection closed by peer")), LostRankError)
    assert ranks.lost(RuntimeError("shapes differ")) is None
    assert ranks.lost(LostRankError("gloo")) is None
