"""The store: equal keys for equal content, publication that is atomic, damage that is found, one maker at a time."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockdec.errors import StoreError
from lockdec.store import METADATA, UNFINISHED, Artifact, Store, artifact_key, canonical_json, damage, file_sha256

FORK = multiprocessing.get_context("fork")  # in milliseconds, since nothing is imported again
KEY = "0" * 64
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


def write_weights(folder: Path) -> dict[str, Any]:
    (folder / "weights").write_bytes(b"0123456789")
    (folder / "drawings").mkdir(exist_ok=True)
    (folder / "drawings" / "a.png").write_bytes(b"picture")
    return {"loss": 1.5}


def make(store: Store, how: Callable[[Path], Mapping[str, Any]] = write_weights) -> Artifact:
    return store.get_or_make("pretrain", KEY, how, config={"steps": 1}, parents={})


@given(value=VALUES)
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: Any) -> None:
    def reversed_keys(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: reversed_keys(value[name]) for name in reversed(value)}
        return [reversed_keys(item) for item in value] if isinstance(value, list) else value

    assert canonical_json(value) == canonical_json(reversed_keys(value))
    assert json.loads(canonical_json(value)) == value


def test_a_key_is_the_same_in_another_process_with_another_hash_seed() -> None:
    code = "from lockdec.store import artifact_key; print(artifact_key(config={'b': 1, 'a': [2.5, None]}, seed=3))"
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("0", "1")
    }
    assert answers == {artifact_key(seed=3, config={"a": [2.5, None], "b": 1})}


def test_made_once_then_reused(tmp_path: Path) -> None:
    store = Store(tmp_path / "stages")
    first = make(store)
    second = make(store, how=lambda folder: pytest.fail("made twice"))
    assert (first.reused, second.reused) == (False, True)
    assert second.metrics == {"loss": 1.5}
    assert second.path("weights").read_bytes() == b"0123456789"


def test_a_failed_attempt_publishes_nothing_and_the_next_one_continues_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "stages")

    def half(folder: Path) -> dict[str, Any]:
        (folder / "last.ckpt").write_bytes(b"half way")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(store, how=half)
    assert store.find("pretrain", KEY) is None

    def rest(folder: Path) -> dict[str, Any]:
        assert (folder / "last.ckpt").read_bytes() == b"half way"
        return write_weights(folder)

    artifact = make(store, how=rest)
    assert sorted(path.name for path in artifact.folder.iterdir()) == [METADATA, "drawings", "weights"]
    assert not list(artifact.folder.parent.glob(f"*{UNFINISHED}"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("harm", [flip, truncate, Path.unlink])
@pytest.mark.parametrize("name", ["weights", "drawings/a.png", METADATA])
def test_damage_is_named_set_aside_and_made_again(tmp_path: Path, name: str, harm: Callable[[Path], None]) -> None:
    store = Store(tmp_path / "stages")
    folder = make(store).folder
    if name == METADATA and harm is flip:  # one flipped bit of JSON may spare its meaning: flip one of a hash
        text = (folder / METADATA).read_text()
        digest = json.loads(text)["files"]["weights"]["sha256"]
        (folder / METADATA).write_text(text.replace(digest, digest[::-1]))
    else:
        harm(folder / name)
    with pytest.warns(UserWarning, match="damaged; set aside"):
        again = make(store)
    assert not again.reused
    assert damage(again.folder, "pretrain", KEY) is None
    assert len(list(folder.parent.glob("*.damaged-*"))) == 1


def test_a_symbolic_link_is_damage(tmp_path: Path) -> None:
    folder = make(Store(tmp_path / "stages")).folder
    elsewhere = tmp_path / "elsewhere"
    (folder / "weights").rename(elsewhere)
    (folder / "weights").symlink_to(elsewhere)
    assert damage(folder, "pretrain", KEY) == "weights"


@pytest.mark.parametrize("name", ["prompt.json", "drawings/b.png", "hosted"])
def test_what_was_added_to_an_artifact_is_named(tmp_path: Path, name: str) -> None:
    """Readers look for some files, and would take one that no stage has written for its work."""
    folder = make(Store(tmp_path / "stages")).folder
    (folder / ".DS_Store").write_text("left by a system")
    for hidden in (".ipynb_checkpoints", "@eaDir"):
        (folder / "drawings" / hidden).mkdir()
        (folder / "drawings" / hidden / "a.png").write_text("likewise")
    (folder / "empty").mkdir()
    assert damage(folder, "pretrain", KEY) is None
    if name == "hosted":
        (folder / name).symlink_to(tmp_path)
    else:
        (folder / name).write_text("{}")
    for names in (None, ["weights"]):
        with pytest.raises(StoreError, match=f"{name}: not part of the artifact; .* Remove it"):
            damage(folder, "pretrain", KEY, names)
    with pytest.raises(StoreError, match="not part of the artifact"):
        make(Store(tmp_path / "stages"))  # what took hours is not made again for it


def test_an_artifact_of_another_schema_is_never_read(tmp_path: Path) -> None:
    folder = make(Store(tmp_path / "stages")).folder
    record = json.loads((folder / METADATA).read_text())
    (folder / METADATA).write_text(json.dumps(record | {"schema": 999}))
    with pytest.raises(StoreError, match=r"artifact\.json: schema 999, and this lockdec .* reads 1"):
        make(Store(tmp_path / "stages"))
    assert (folder / METADATA).is_file()


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file, not a folder")
    with pytest.raises(StoreError, match=r"paths\.outputs=.*outputs: cannot write there"):
        Store(tmp_path / "outputs" / "stages")


def slow_maker(root: Path, log: Path, together: Barrier) -> None:
    def how(folder: Path) -> dict[str, Any]:
        with log.open("a") as file:
            file.write("made\n")
        time.sleep(0.5)
        return write_weights(folder)

    together.wait(60)  # however long each took to start
    make(Store(root), how)


def test_eight_processes_make_it_once(tmp_path: Path) -> None:
    root, log, together = tmp_path / "stages", tmp_path / "log", FORK.Barrier(8)
    workers = [FORK.Process(target=slow_maker, args=(root, log, together)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert log.read_text() == "made\n"


def endless_maker(root: Path, log: Path) -> None:
    def how(folder: Path) -> dict[str, Any]:
        log.write_text("started")
        time.sleep(60)
        return {}

    make(Store(root), how)


def test_a_killed_maker_blocks_nobody(tmp_path: Path) -> None:
    root, log = tmp_path / "stages", tmp_path / "log"
    worker = FORK.Process(target=endless_maker, args=(root, log))
    worker.start()
    deadline = time.monotonic() + 30
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert not make(Store(root)).reused


def test_a_file_is_hashed_once_and_again_after_every_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "weights", list[str]()
    digest = hashlib.file_digest

    def noted(file: Any, name: str) -> Any:
        read.append(file.name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    monkeypatch.setattr("lockdec.store._SETTLED", 0)
    path.write_bytes(b"0123456789")
    first = [file_sha256(path) for _ in range(3)]
    assert first == [hashlib.sha256(b"0123456789").hexdigest()] * 3
    assert len(read) == 1
    before = path.stat()
    time.sleep(0.05)  # longer than the clock of the file system takes to move
    path.write_bytes(b"0123456780")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # whoever sets this time back, too
    assert file_sha256(path) == hashlib.sha256(b"0123456780").hexdigest()
    monkeypatch.setattr("lockdec.store._SETTLED", 10**18)
    path.write_bytes(b"0")
    assert file_sha256(path) == hashlib.sha256(b"0").hexdigest()
    path.write_bytes(b"1")  # perhaps at the same time, as far as the file system can tell
    assert file_sha256(path) == hashlib.sha256(b"1").hexdigest()
