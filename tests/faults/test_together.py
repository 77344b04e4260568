"""Several processes at once on one store, one of them killed, and a file system whose locks do not work."""

from __future__ import annotations

import errno
import multiprocessing
import os
import platform
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from lockdec.errors import StoreError
from lockdec.store import Store
from tests.faults.causes import FLOCK, Fault, break_locks
from tests.faults.conftest import essence, leftovers
from tests.faults.warm import Command, Warm
from tests.sweeps.sweeping import SHARED

KEY = "0" * 64


def test_pipelines_started_together_make_each_artifact_once(warm: Warm, undisturbed: Command, tmp_path: Path) -> None:
    """Four of one config, and one of another size, which shares the stages that no size changes."""
    outputs = tmp_path / "outputs"
    commands = [warm.start(outputs, name=f"run{number}") for number in range(4)]
    other = warm.start(outputs, "cross_attention.d_k=1", name="other")
    every = [*commands, other]
    assert [command.wait() for command in every] == [0] * 5, [command.printed for command in every]
    wanted = essence(undisturbed)
    assert all(essence(command) == wanted for command in commands)
    for stage in wanted["files"]:
        sharing = every if stage in SHARED else commands
        assert sum(not command.result["stages"][stage]["reused"] for command in sharing) == 1, stage
    made = {stage for stage, entry in other.result["stages"].items() if not entry["reused"]}
    assert made | {*SHARED} == {*wanted["files"]}
    assert len(other.artifacts) == 2 * len(wanted["files"]) - len(SHARED)
    assert leftovers(outputs) == []


def maker(root: Path, log: Path, pause: float) -> None:
    def make(folder: Path) -> dict[str, Any]:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(pause)
        (folder / "weights").write_bytes(b"0123456789")
        return {}

    Store(root).get_or_make("pretrain", KEY, make, {}, {})


def start(context: Any, *arguments: Any) -> BaseProcess:
    process: BaseProcess = context.Process(target=maker, args=arguments)
    process.start()
    return process


def test_the_death_of_the_maker_lets_another_of_seven_make_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")  # in milliseconds, so that all of them wait
    root, log = tmp_path / "stages", tmp_path / "log"
    first = start(context, root, log, 60.0)
    deadline = time.monotonic() + 30
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    others = [start(context, root, log, 0.1) for _ in range(7)]
    time.sleep(0.3)
    assert all(process.is_alive() for process in others)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    for process in others:
        process.join(30)
    assert [process.exitcode for process in others] == [0] * 7
    makers = log.read_text().split()
    assert len(makers) == 2
    assert makers[0] == str(first.pid)
    assert makers[1] in {str(process.pid) for process in others}


def without_locks(root: Path, answer: int, said: Any) -> None:
    break_locks(answer)
    try:
        Store(root)
        said.put("nothing")
    except StoreError as error:
        said.put(str(error))


@pytest.mark.skipif(platform.machine() not in FLOCK, reason="the number of flock is not known here")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (0, "a second process gets a lock that is held"),
        (errno.ENOSYS, "Function not implemented"),
        (errno.ENOLCK, "No locks available"),
    ],
)
def test_a_file_system_without_working_locks_is_refused(answer: int, reason: str, tmp_path: Path) -> None:
    """The kernel itself answers flock so, as some network file systems have it do."""
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()
    process = context.Process(target=without_locks, args=(tmp_path / "stages", answer, said))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert f"no working locks ({reason})" in said.get()


def test_the_command_says_that_locks_do_not_work(warm: Warm, tmp_path: Path) -> None:
    command = warm.start(tmp_path / "outputs", fault=Fault(flock=0))
    assert command.wait() == 1
    assert "the file system has no working locks" in command.printed
    assert command.result["status"] == "failed"
