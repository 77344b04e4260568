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
from tests.faults.conftest import bring, essence, leftovers
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


UNTIL_UNLOCK = ("pretrain", "attach", "unlock")
BEFORE = {  # the stages that are not made anew, since the fault comes after them
    "evaluate/*captions.jsonl": (*UNTIL_UNLOCK, "finetune"),
    ".cross_attention.safetensors.": ("pretrain", "attach"),
    "finetune/*.last.ckpt.": UNTIL_UNLOCK,
    "finetune/*.metrics.csv.": UNTIL_UNLOCK,
    "evaluate/*attention.jsonl": (*UNTIL_UNLOCK, "finetune"),
    ".result.json.": (*UNTIL_UNLOCK, "finetune"),
}


@pytest.mark.parametrize(
    ("file", "leave", "said"),
    [
        (".last.ckpt.", 40_000, r"pretrain/\w+\.unfinished/last\.ckpt: did not fit; it needs [\d.]+ kB"),
        (".decoder.safetensors.", 40_000, r"decoder\.safetensors: did not fit; it needs [\d.]+ kB"),
        (
            "raw.float32",
            40_000,
            r"states\.npy: a cache of the states of 64 inputs needs [\d.]+ MB, and \d+\.\d kB are free",
        ),
        ("evaluate/*captions.jsonl", 0, r"captions\.jsonl: did not fit; it needs more than 0 bytes"),
        (".cross_attention.safetensors.", 0, r"unlock/.*cross_attention\.safetensors: did not fit; it needs [\d.]+ kB"),
        ("finetune/*.last.ckpt.", 0, r"finetune/\w+\.unfinished/last\.ckpt: did not fit; it needs [\d.]+ kB"),
        ("finetune/*.metrics.csv.", 0, r"finetune/.*metrics\.csv: did not fit; it needs [\d.]+ bytes"),
        ("evaluate/*attention.jsonl", 0, r"evaluate/.*attention\.jsonl: did not fit"),
        (".artifact.json.", 0, r"artifact\.json: did not fit; it needs [\d.]+ (bytes|kB)"),
        (".result.json.", 0, r"result\.json: did not fit; it needs [\d.]+ kB"),
    ],
)
def test_a_full_disk_is_named_and_freeing_space_is_enough(
    file: str, leave: int, said: str, warm: Warm, undisturbed: Command, small_disk: Path
) -> None:
    outputs = small_disk / "outputs"
    bring(undisturbed, outputs, *BEFORE.get(file, ()))
    command = warm.start(outputs, fault=Fault(fill=file, leave=leave))
    assert command.wait() == 1
    assert re.search(said, command.printed), command.printed
    assert "free some space" in command.printed
    assert "Traceback" not in command.printed
    before = command.artifacts
    (outputs / "filler").unlink()
    again = warm.run(outputs)
    assert before.items() <= again.artifacts.items()
    assert essence(again) == essence(undisturbed)
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
