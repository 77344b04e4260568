"""One flipped bit, a cut or a loss in any file of an artifact is found; what runs refer to is never removed unasked."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from lockdec.errors import StoreError
from lockdec.store import DAMAGED, METADATA, UNFINISHED, damage
from lockdec.store.__main__ import main
from lockdec.store.keeping import DAY, entries, unreferred
from tests.faults.conftest import essence
from tests.faults.test_signals import wait_for
from tests.faults.warm import Command, Warm

OLD_ARTIFACTS = Path(__file__).parent / "artifacts"


@pytest.fixture
def copy(undisturbed: Command, tmp_path: Path) -> Path:
    """The outputs of the undisturbed run, to be harmed."""
    return Path(shutil.copytree(undisturbed.outputs, tmp_path / "outputs"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0x10
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def link(path: Path) -> None:
    elsewhere = path.parents[3] / f"elsewhere-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def test_every_file_of_every_artifact_is_watched(copy: Path) -> None:
    harmed = 0
    for folder in sorted(copy.glob("stages/*/*/")):
        stage, key = folder.parent.name, folder.name
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        kinds = {path.suffix: path for path in files if path.name != METADATA}
        assert damage(folder, stage, key) is None
        for path in [*kinds.values(), folder / METADATA]:
            whole = path.read_bytes()
            for harm in (flip, cut, link, Path.unlink):
                if path.name == METADATA and harm in (flip, cut, link):
                    continue
                harm(path)
                assert damage(folder, stage, key) == path.relative_to(folder).as_posix(), (path, harm)
                path.unlink(missing_ok=True)
                path.write_bytes(whole)
                harmed += 1
    print(f"{harmed} files harmed, all found")
    assert harmed > 40


def test_a_flipped_bit_of_artifact_json_changes_nothing_unseen(copy: Path) -> None:
    """One in white space, or in the name of its own hash, leaves what it says as it was."""
    folder = next(copy.glob("stages/unlock/*/"))
    path = folder / METADATA
    whole = path.read_bytes()
    meaning = {name: value for name, value in json.loads(whole).items() if name != "sha256"}
    seen = 0
    for place in range(0, len(whole), 5):
        for bit in (1, 2, 16):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            try:
                found = damage(folder, "unlock", folder.name)
            except StoreError:
                found = "another schema"
            seen += found is not None
            if found is None:
                record = json.loads(path.read_text())
                assert {name: record.get(name) for name in meaning} == meaning, place
    assert seen > 0.7 * 3 * len(whole) / 5
    print(f"{seen} flipped bits of artifact.json seen")


def test_what_is_damaged_in_every_stage_is_reported_set_aside_and_made_again(
    copy: Path, warm: Warm, undisturbed: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--outputs", str(copy)]) == 0
    for number, folder in enumerate(sorted(copy.glob("stages/*/*/"))):
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != METADATA]
        (flip, cut, Path.unlink)[number % 3](files[number % len(files)])
    assert main(["verify", "--outputs", str(copy)]) == 1
    said = capsys.readouterr().out
    assert said.count("damaged /") == 6
    assert "0 of 6 artifacts match their hashes" in said
    again = warm.run(copy)
    assert again.printed.count("is damaged; set aside") == 6
    assert essence(again) == essence(undisturbed)
    assert len(list(copy.glob(f"stages/*/*{DAMAGED}*"))) == 6
    assert main(["prune", "--outputs", str(copy)]) == 0
    assert not list(copy.glob(f"stages/*/*{DAMAGED}*"))
    assert main(["verify", "--outputs", str(copy)]) == 0


def test_list_shows_sizes_ages_and_users(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--outputs", str(copy)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["attach", "evaluate", "finetune", "pretrain", "prior", "unlock"]
    assert all(" days  1 run" in line and "B  " in line for line in lines[:-1])
    total = sum(path.stat().st_size for path in copy.glob("stages/[!.]*/**/*") if path.is_file())
    assert lines[-1] == f"6 folders, {total / 1e6:.1f} MB"


def test_gc_spares_what_runs_refer_to_what_was_just_used_and_what_is_to_be_kept(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in copy.glob("stages/*/*/"):
        os.utime(folder, (time.time() - 3 * DAY,) * 2)
    place = ["--outputs", str(copy)]
    assert main(["gc", *place]) == 0
    assert len(list(copy.glob("stages/*/*/"))) == 6
    result = next(copy.glob("runs/*/result.json"))
    shown = json.loads(result.read_text())
    # A run that ended after unlocking still needs the decoder, since unlock was made of it.
    shown["stages"] = {"unlock": shown["stages"]["unlock"]}
    result.write_text(json.dumps(shown))
    assert {entry.stage for entry in unreferred(entries(copy), [], 0, False)} == {"finetune", "prior", "evaluate"}
    assert main(["gc", *place, "--dry-run"]) == 0
    assert main(["gc", *place, "--older-than", "5"]) == 0
    assert len(list(copy.glob("stages/*/*/"))) == 6
    assert main(["gc", *place, "--keep", "fine*"]) == 0
    assert sorted(path.parent.name for path in copy.glob("stages/*/*/")) == ["attach", "finetune", "pretrain", "unlock"]
    assert main(["gc", *place, "--referred", "--keep", "pretrain/*"]) == 0
    assert [path.parent.name for path in copy.glob("stages/*/*/")] == ["pretrain"]
    result.write_text("{")
    assert main(["gc", *place, "--referred"]) == 1
    assert "result.json: not JSON" in capsys.readouterr().err


def test_prune_spares_an_attempt_that_can_be_resumed(copy: Path) -> None:
    folder = next(copy.glob("stages/finetune/*/"))
    unfinished = folder.rename(folder.with_name(folder.name + UNFINISHED))
    assert main(["prune", "--outputs", str(copy)]) == 0
    assert unfinished.is_dir()
    os.utime(unfinished, (time.time() - 8 * DAY,) * 2)
    assert main(["prune", "--outputs", str(copy)]) == 0
    assert not unfinished.exists()


@pytest.mark.parametrize("schema", sorted(path.name for path in OLD_ARTIFACTS.iterdir()))
def test_an_artifact_of_each_released_schema_is_read_or_refused_by_name(schema: str) -> None:
    """What a released lockdec wrote; the folder is never changed, only joined by those of later schemas."""
    folder = next((OLD_ARTIFACTS / schema).glob("unlock/*"))
    assert json.loads((folder / METADATA).read_text())["schema"] == int(schema.removeprefix("schema_"))
    assert damage(folder, "unlock", folder.name) is None


@pytest.mark.parametrize("schema", [0, 2, 999])
def test_an_artifact_of_an_unknown_schema_is_refused_by_name_and_left_alone(schema: int, copy: Path) -> None:
    folder = next(copy.glob("stages/unlock/*/"))
    record = json.loads((folder / METADATA).read_text())
    (folder / METADATA).write_text(json.dumps(record | {"schema": schema}))
    with pytest.raises(StoreError, match=rf"artifact\.json: schema {schema}, and this lockdec .* reads 1"):
        damage(folder, "unlock", folder.name)


def test_a_file_that_is_truncated_while_it_is_read_ends_the_run_and_the_next_start_mends_it(
    warm: Warm, undisturbed: Command, tmp_path: Path
) -> None:
    """Nothing in lockdec truncates a published file, but rsync --inplace would."""
    outputs = tmp_path / "outputs"
    shutil.copytree(undisturbed.outputs / "stages", outputs / "stages")
    endless = warm.start(outputs, "finetune.steps=100000", "logger.kinds=[csv]")
    wait_for(endless.folder / "stages" / "finetune" / "metrics.csv", seconds=240)
    os.truncate(next(outputs.glob("stages/attach/*/states.npy")), 0)
    assert endless.wait() == 1
    assert "states.npy has become shorter since it was opened" in endless.printed
    again = warm.run(outputs)
    assert essence(again) == essence(undisturbed)
    assert not again.result["stages"]["attach"]["reused"]
    assert len(list(outputs.glob("stages/attach/*.damaged*"))) == 1
