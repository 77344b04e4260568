"""A disk that fills while each kind of file is written: what did not fit is named, and nothing before it is lost."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockdec.store.writing import is_disk_full
from tests.faults.causes import Fault
from tests.faults.conftest import STAGES, bring, contents, essence, leftovers, up_to
from tests.faults.warm import Command, Warm


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small file system needs root: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


FILES = {  # of each stage, at which the disk is full one after the other: (file, bytes that still fit, what is said)
    "pretrain": [
        (".last.ckpt.", 40_000, r"pretrain/\w+\.unfinished/last\.ckpt: did not fit; it needs [\d.]+ kB"),
        (".decoder.safetensors.", 40_000, r"decoder\.safetensors: did not fit; it needs [\d.]+ kB"),
        (".artifact.json.", 0, r"artifact\.json: did not fit; it needs [\d.]+ (bytes|kB)"),
    ],
    "attach": [
        (
            "raw.float32",
            40_000,
            r"states\.npy: a cache of the states of 64 inputs needs [\d.]+ MB, and \d+\.\d kB are free",
        ),
    ],
    "unlock": [
        (".cross_attention.safetensors.", 0, r"unlock/.*cross_attention\.safetensors: did not fit; it needs [\d.]+ kB"),
    ],
    "finetune": [
        ("finetune/*.last.ckpt.", 0, r"finetune/\w+\.unfinished/last\.ckpt: did not fit; it needs [\d.]+ kB"),
        ("finetune/*.metrics.csv.", 0, r"finetune/.*metrics\.csv: did not fit; it needs [\d.]+ bytes"),
    ],
    "evaluate": [
        ("evaluate/*captions.jsonl", 0, r"captions\.jsonl: did not fit; it needs more than 0 bytes"),
        ("evaluate/*attention.jsonl", 0, r"evaluate/.*attention\.jsonl: did not fit"),
        (".result.json.", 0, r"result\.json: did not fit; it needs [\d.]+ kB"),
    ],
}


@pytest.mark.parametrize("stage", FILES)
def test_a_full_disk_is_named_and_freeing_space_is_enough(
    stage: str, warm: Warm, undisturbed: Command, small_disk: Path
) -> None:
    """Full again at each file. The stages before that of the file are not made anew, and those after it not at all."""
    outputs = small_disk / "outputs"
    bring(undisturbed, outputs, *STAGES[: STAGES.index(stage)])
    before: dict[str, int] = {}
    for file, leave, said in FILES[stage]:
        command = warm.start(outputs, up_to(stage), fault=Fault(fill=file, leave=leave))
        assert command.wait() == 1, file
        assert re.search(said, command.printed), command.printed
        assert "free some space" in command.printed
        assert "Traceback" not in command.printed
        assert before.items() <= command.artifacts.items()
        before = command.artifacts
        (outputs / "filler").unlink()
    again = warm.run(outputs, up_to(stage))
    assert before.items() <= again.artifacts.items()
    assert stage in contents(again)
    assert contents(again).items() <= contents(undisturbed).items()
    assert stage != "evaluate" or essence(again) == essence(undisturbed)
    assert leftovers(outputs) == []


def test_a_limit_on_the_size_of_files_is_named_too(warm: Warm, undisturbed: Command, tmp_path: Path) -> None:
    """What stands in for a quota where nobody may mount: needs no rights."""
    outputs = tmp_path / "outputs"
    command = warm.start(outputs, fault=Fault(limits={"RLIMIT_FSIZE": 150_000}))
    assert command.wait() == 1
    assert re.search(r"last\.ckpt: did not fit; it needs [\d.]+ kB", command.printed), command.printed
    assert essence(warm.run(outputs)) == essence(undisturbed)
    assert os.path.getsize(next(outputs.glob("stages/pretrain/*/decoder.safetensors"))) < 150_000


def test_an_error_that_is_its_own_cause_is_searched_once() -> None:
    error = RuntimeError("x")
    error.__cause__ = error
    assert not is_disk_full(error)
    error.__cause__ = OSError(errno.ENOSPC, "full")
    assert is_disk_full(error)
