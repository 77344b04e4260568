"""Checkpoints: a stage resumes from what it has written itself, whole, and from nothing else."""

from __future__ import annotations

import io
import json
import random
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lockdec.errors import StoreError
from lockdec.store import CHECKPOINT, DAMAGED, GOOD_CHECKPOINT
from lockdec.store.writing import write_bytes
from lockdec.training import checkpoints, divergence
from lockdec.training.checkpoints import CheckpointIO, read_checkpoint
from tests.training.test_divergence import Breaks
from tests.training.test_divergence import train as train_with_rollback
from tests.training.test_fit import Line, train


class Dies(Line):
    """Ends like a killed process, at step 13 of 20."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.global_step == 13:
            raise KeyError("dead")
        return super().training_step(batch, batch_idx)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a stage that was killed, with its last checkpoint."""
    folder = tmp_path_factory.mktemp("stage") / "key.unfinished"
    folder.mkdir()
    with pytest.raises(KeyError):
        train(folder, Dies())
    return folder


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """The module of a stage that nothing has disturbed."""
    return train(tmp_path_factory.mktemp("straight"), Line())


def copy(killed: Path, to: Path) -> Path:
    folder = to / killed.parent.name / killed.name
    shutil.copytree(killed, folder)
    return folder


def sealed(folder: Path, change: Callable[[dict[str, Any]], Any], owner: str | None = None) -> None:
    """Change what a checkpoint holds, under a seal that holds."""
    path, own = folder / CHECKPOINT, f"{folder.parent.name}/key"
    checkpoint = read_checkpoint(path, own)
    CheckpointIO(owner or own).save_checkpoint(change(checkpoint) or checkpoint, path)


def resaved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def lightning_of_the_past(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "versions", lambda: {"lightning": "1.9.0", "torch": "1.9.0"})
        content = torch.load(folder / CHECKPOINT, weights_only=True)
        CheckpointIO(f"{folder.parent.name}/key").save_checkpoint(content, folder / CHECKPOINT)


def in_its_place_a_folder(folder: Path) -> None:
    (folder / CHECKPOINT).unlink()
    (folder / CHECKPOINT).mkdir()


HARMS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut": (lambda f: write_bytes(f / CHECKPOINT, (f / CHECKPOINT).read_bytes()[:-7]), "no seal|cut"),
    "half": (lambda f: write_bytes(f / CHECKPOINT, (f / CHECKPOINT).read_bytes()[:2000]), "cut"),
    "empty": (lambda f: write_bytes(f / CHECKPOINT, b""), "cut"),
    "{}": (lambda f: write_bytes(f / CHECKPOINT, resaved({})), "no seal"),
    "a list": (lambda f: write_bytes(f / CHECKPOINT, resaved([1, 2])), "no seal"),
    "Lightning's own": (
        lambda f: write_bytes(f / CHECKPOINT, resaved(torch.load(f / CHECKPOINT, weights_only=True))),
        "no seal",
    ),
    "another key": (lambda f: sealed(f, dict, owner="stage/another"), "of another artifact"),
    "an empty state": (lambda f: sealed(f, lambda c: c | {"state_dict": {}}), "not the state of a Line"),
    "another size": (
        lambda f: sealed(f, lambda c: c | {"state_dict": {"value": torch.zeros(2)}}),
        "not the state of a Line of this size",
    ),
    "no optimizer": (lambda f: sealed(f, lambda c: c | {"optimizer_states": []}), "no state of an optimizer"),
    "no curve": (lambda f: sealed(f, lambda c: c | {"callbacks": {}}), "no learning curve"),
    "a folder": (in_its_place_a_folder, "cannot be read"),
    "another Lightning": (lightning_of_the_past, r"written with lightning 1\.9\.0 torch 1\.9\.0, not lightning 2"),
}


@pytest.mark.parametrize("harm", HARMS)
def test_what_does_not_fit_is_set_aside_and_the_stage_starts_anew(
    harm: str, killed: Path, straight: Line, tmp_path: Path
) -> None:
    folder = copy(killed, tmp_path)
    change, why = HARMS[harm]
    change(folder)
    with pytest.warns(UserWarning, match=f"({why}).*; set aside as key{DAMAGED}.*, and the stage starts anew"):
        again = train(folder, Line())
    assert again.value.equal(straight.value)
    assert list(folder.parent.glob(f"key{DAMAGED}*/{CHECKPOINT}"))
    assert not (folder / CHECKPOINT).is_dir()


def test_a_checkpoint_that_fits_is_resumed_to_the_same_bits_with_the_whole_curve(
    killed: Path, straight: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy(killed, tmp_path)
    before = (folder / CHECKPOINT).read_bytes()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*set aside.*")
        again = train(folder, Line())
    assert again.value.equal(straight.value)
    assert "continuing after step 13 of 20" in capsys.readouterr().out
    assert (folder / CHECKPOINT).read_bytes() != before
    assert [line.split(",")[0] for line in (folder / "metrics.csv").read_text().split()] == ["step", "10", "20"]


def test_every_flipped_bit_is_found(killed: Path, tmp_path: Path) -> None:
    path, owner = tmp_path / CHECKPOINT, f"{killed.parent.name}/key"
    whole = (killed / CHECKPOINT).read_bytes()
    read_checkpoint(killed / CHECKPOINT, owner)
    tail = range(len(whole) - 400, len(whole))  # the end of the zip, and the seal
    places = {*random.Random(0).sample(range(len(whole)), 400), *tail, 0}
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(StoreError):
            read_checkpoint(path, owner)
    print(f"{len(places)} flipped bits, all found")


def test_torch_and_zip_tools_still_read_it(killed: Path) -> None:
    assert torch.load(killed / CHECKPOINT, weights_only=True)["global_step"] == 13
    with zipfile.ZipFile(killed / CHECKPOINT) as file:
        assert file.testzip() is None
        assert json.loads(file.comment)["step"] == 13


@pytest.mark.parametrize("harmed_at", [0, 12])  # before the stage is run again, and while it runs
def test_a_damaged_good_checkpoint_starts_the_stage_anew(
    harmed_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(divergence, "GOOD_EVERY", 5)
    whole = Breaks(float("nan"), bearable=0.03)
    (tmp_path / "stage").mkdir()
    assert train_with_rollback(tmp_path / "stage" / "whole", whole)["stage/rollbacks"] == 2
    folder = tmp_path / "stage" / "key.unfinished"

    class Harmed(Breaks):
        done = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.global_step == 7 and harmed_at and not Harmed.done:
                Harmed.done = True
                (folder / GOOD_CHECKPOINT).write_bytes(b"damaged")
            return super().training_step(batch, batch_idx)

    if not harmed_at:
        with pytest.raises(KeyError, match="dead"):
            train_with_rollback(folder, Breaks(float("nan"), bearable=0.03, dies_at=9))
        (folder / GOOD_CHECKPOINT).write_bytes(b"damaged")
    again = Harmed(float("nan"), bearable=0.03)
    with pytest.warns(UserWarning, match=r"good\.ckpt.*set aside"):
        assert train_with_rollback(folder, again)["stage/rollbacks"] == 2
    assert again.value.equal(whole.value)
