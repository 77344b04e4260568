"""Stores of several people: layers that are read and never written, and one store that a group writes to."""

from __future__ import annotations

import codecs
import io
import multiprocessing
import os
import signal
import stat
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from lockdec.errors import StoreError
from lockdec.store import METADATA, Artifact, Store, damage, located
from lockdec.store.__main__ import main
from lockdec.store.keeping import entries, problems, unreferred

KEY = "0" * 64
ANNA, BEN, GROUP = 23_001, 23_002, 23_000
FORK = multiprocessing.get_context("fork")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root: run the tests as root")


def write_weights(folder: Path) -> dict[str, Any]:
    (folder / "weights").write_bytes(b"0123456789")
    return {"loss": 1.5}


def make(store: Store, how: Callable[[Path], Mapping[str, Any]] = write_weights, **waiting: Any) -> Artifact:
    return store.get_or_make("pretrain", KEY, how, config={}, parents={}, **waiting)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_mode) for path in (folder, *folder.rglob("*"))}


def test_what_a_layer_has_is_used_from_there_and_nothing_is_written_to_it(tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "own"
    folder = make(Store(shared)).folder
    before = snapshot(shared)
    found = make(Store(own, [shared]), how=lambda _: pytest.fail("made again"))
    assert (found.folder, found.reused, found.metrics) == (folder, True, {"loss": 1.5})
    assert snapshot(shared) == before
    assert not list(own.glob("*/*"))
    assert located([shared, own], "pretrain", KEY) == folder
    assert located([shared, own], "unlock", KEY) == own / "unlock" / KEY


def test_what_is_damaged_in_a_layer_is_named_and_made_in_the_own_store(tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "own"
    folder = make(Store(shared)).folder
    (folder / "weights").write_bytes(b"0123456780")
    before = snapshot(shared)
    with pytest.warns(UserWarning, match=r"shared/pretrain/0+: not used \(weights is damaged\)"):
        made = make(Store(own, [shared]))
    assert (made.folder, made.reused) == (own / "pretrain" / KEY, False)
    assert damage(made.folder, "pretrain", KEY) is None
    assert snapshot(shared) == before


def test_a_layer_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"paths\.stores: .*nowhere cannot be read \(No such file or directory\)"):
        Store(tmp_path / "own", [tmp_path / "nowhere"])


@needs_root
def test_a_layer_that_may_not_be_entered_is_refused_by_name(place: Path) -> None:
    (place / "closed" / "stages").mkdir(parents=True)
    (place / "closed").chmod(0o700)
    answer = told(as_user(BEN, lambda: Store(place / "own", [place / "closed" / "stages"])))
    assert answer.startswith(f"StoreError: paths.stores: {place}/closed/stages cannot be read (Permission denied)")


@needs_root
def test_what_cannot_be_removed_is_not_said_to_be_removed(place: Path) -> None:
    assert told(as_user(ANNA, use, place / "stages", umask=0o022)) == "made"

    def collect() -> str:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as problem:
            status = main(["gc", "--outputs", str(place), "--older-than", "0"])
        return f"{status} {out.getvalue()}{problem.getvalue()}"

    answer = told(as_user(BEN, collect))
    assert answer.startswith("1 lockdec: "), answer
    assert "cannot be removed (Permission denied)" in answer


def test_the_command_lists_and_verifies_a_layer_and_removes_nothing_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared, own = tmp_path / "shared", tmp_path / "stages"
    folder = make(Store(shared)).folder
    Store(own, [shared])
    place = ["--outputs", str(tmp_path), "--stores", str(shared)]
    assert main(["list", *place]) == 0
    assert f"0 runs, in {shared}" in capsys.readouterr().out
    assert main(["verify", *place]) == 0
    assert "1 of 1 artifacts" in capsys.readouterr().out
    assert unreferred(entries(tmp_path, (), [shared]), [], 0, True) == []
    assert main(["gc", *place, "--referred", "--older-than", "0"]) == 0
    assert folder.is_dir()
    (folder / "weights").unlink()
    assert main(["verify", *place]) == 1


def as_user(user: int, work: Callable[..., Any], *arguments: Any, umask: int = 0o002) -> Any:
    """Start work in a process of another user of the group."""

    def become(said: Any) -> None:
        os.setgroups([])
        os.setgid(GROUP)
        os.setuid(user)
        os.umask(umask)
        try:
            said.put(str(work(*arguments)))
        except StoreError as error:
            said.put(f"StoreError: {error}")

    codecs.lookup("utf-8-sig")  # another user may not be able to read the modules of Python, so none is imported late
    said = FORK.SimpleQueue()
    process = FORK.Process(target=become, args=(said,))
    process.start()
    return process, said


def told(started: Any) -> str:
    process, said = started
    process.join(60)
    assert process.exitcode == 0
    return str(said.get())


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the group may write to, whose files belong to the group."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="lockdec-group-"))  # not below pytest's, which only its user can enter
    os.chown(folder, 0, GROUP)
    folder.chmod(0o2775)
    yield folder
    shutil.rmtree(folder)


def use(root: Path, how: Callable[[Path], Mapping[str, Any]] = write_weights) -> str:
    made = make(Store(root), how)
    return "reused" if made.reused else "made"


@needs_root
def test_a_group_shares_a_store(place: Path) -> None:
    root = place / "stages"
    assert told(as_user(ANNA, use, root)) == "made"
    assert told(as_user(BEN, use, root)) == "reused"
    assert all(path.stat().st_gid == GROUP for path in root.rglob("*"))
    weights = root / "pretrain" / KEY / "weights"
    assert stat.S_IMODE(weights.stat().st_mode) == 0o664
    assert stat.S_IMODE((weights.parent / METADATA).stat().st_mode) == 0o664
    weights.write_bytes(b"0123456780")
    assert told(as_user(BEN, use, root)) == "made", "what Anna made is set aside by Ben"


def die(folder: Path) -> dict[str, Any]:
    (folder / "last.ckpt").write_bytes(b"half way")
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def go_on(folder: Path) -> dict[str, Any]:
    assert (folder / "last.ckpt").read_bytes() == b"half way"
    return write_weights(folder)


@needs_root
def test_what_one_began_another_goes_on_with(place: Path) -> None:
    process, _ = as_user(ANNA, use, place / "stages", die)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert told(as_user(BEN, use, place / "stages", go_on)) == "made"


def hold(root: Path, ready: Path) -> str:
    def how(folder: Path) -> dict[str, Any]:
        ready.touch()
        time.sleep(1.0)
        return write_weights(folder)

    return use(root, how)


def wait(root: Path) -> str:
    heard: list[str] = []
    return f"{make(Store(root), waiting=heard.append).reused} {heard}"


@needs_root
@pytest.mark.parametrize("umask", [0o002, 0o022])
def test_who_waits_is_told_for_whom(umask: int, place: Path) -> None:
    """Also where the file of the lock can only be read."""
    first = as_user(ANNA, hold, place / "stages", place / "ready", umask=umask)
    deadline = time.monotonic() + 30
    while not (place / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    for folder in (place / "stages", place / "stages" / ".locks"):
        folder.chmod(0o2775)
    heard = told(as_user(BEN, wait, place / "stages"))
    assert heard.startswith("True ['")
    assert f"{ANNA}@{os.uname().nodename}, process {first[0].pid}, since 20" in heard
    assert told(first) == "made"


@needs_root
def test_a_store_of_somebody_else_is_reused_and_what_cannot_be_written_is_said(place: Path) -> None:
    """Anna's umask shuts the others out."""
    assert told(as_user(ANNA, use, place / "stages", umask=0o022)) == "made"
    answer = told(as_user(BEN, use, place / "stages"))
    assert "cannot write there (Permission denied)" in answer
    (place / "stages" / ".locks").chmod(0o2775)
    assert told(as_user(BEN, use, place / "stages")) == "reused"

    def other(root: Path) -> str:
        return str(Store(root).get_or_make("pretrain", "1" * 64, write_weights, {}, {}).reused)

    answer = told(as_user(BEN, other, place / "stages"))
    assert f"{'1' * 64}.unfinished: cannot be written (Permission denied)" in answer
    assert f"stages/pretrain belongs to user {ANNA}. A store that several people write to" in answer


def test_a_store_behind_a_symbolic_link_and_with_odd_names_is_a_store(tmp_path: Path) -> None:
    real = tmp_path / 'it\'s "real" (a, b)'
    real.mkdir()
    link = tmp_path / "link"
    link.symlink_to(real)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not make(Store(link / "stages")).reused
        assert make(Store(real / "stages")).reused
        assert make(Store(tmp_path / "own", [link / "stages"])).reused
    assert main(["verify", "--outputs", str(link)]) == 0


def test_a_clock_that_is_set_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Artifacts and locks of tomorrow; what is set aside twice at the same moment."""
    root = tmp_path / "stages"
    folder = make(Store(root)).folder
    os.utime(folder, (time.time() + 86_400,) * 2)
    now = time.time() - 10 * 86_400
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(time, "time_ns", lambda: int(now * 1e9))
    assert make(Store(root)).reused
    for _ in range(2):
        (folder / "weights").write_bytes(b"0123456780")
        with pytest.warns(UserWarning, match="damaged; set aside"):
            assert not make(Store(root)).reused
    assert len(list(folder.parent.glob("*.damaged-*"))) == 2
    assert unreferred(entries(tmp_path), [], 1.0, False) == [], "not unused for long"
    assert all(entry.age >= 0 for entry in entries(tmp_path)), "people read it"


@needs_root
@pytest.mark.parametrize("name", ["weights", METADATA, ".", ".."])
def test_what_may_not_be_read_in_a_layer_is_named_and_made_in_the_own_store(name: str, place: Path) -> None:
    shared = make(Store(place / "layer")).folder / name
    shared.chmod(0o700 if shared.is_dir() else 0o600)

    def use_layer() -> str:
        with pytest.warns(UserWarning, match=r"not used \(.*Permission denied\)"):
            made = make(Store(place / "stages", [place / "layer"]))
        listed = entries(place, stores=[place / "layer"])
        unread = [problem for _, problem in problems(place, listed)]
        return f"{made.reused} {unread}"

    answer = told(as_user(BEN, use_layer))
    assert answer.startswith("False ['") or (name == ".." and answer == "False []")  # what is below is not even listed
