"""A finished run becomes a plug without anything of its decoder or of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockdec.caption import main as caption
from lockdec.export import main as export
from lockdec.plugs.folder import _located
from lockdec.plugs.record import GIVEN
from lockdec.plugs.writing import _portable
from tests.conftest import TinyRun


def test_the_commands_write_and_use_one(
    tiny: TinyRun, tmp_path: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export([str(tiny.folder), str(tmp_path / "mine"), "--plug"])
    assert "a plug of" in capsys.readouterr().out
    assert not list((tmp_path / "mine").rglob("decoder*"))
    caption([str(tmp_path / "mine"), str(picture), "--decoder", str(tiny.folder)])
    assert capsys.readouterr().out.startswith(f"{picture}: ")
    with pytest.raises(SystemExit, match="a plug has no decoder of its own: name the one that it was made for"):
        caption([str(tmp_path / "mine"), str(picture)])
    with pytest.raises(SystemExit, match=r"only a plug takes a decoder or an encoder, and there is no plug\.json"):
        caption([str(tiny.folder), str(picture), "--decoder", str(tiny.folder)])


def test_paths_of_this_machine_do_not_travel(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    config = {"_target_": "x", "path": str(tmp_path / "clip"), "inner": [{"path": "owner/model"}]}
    travels = _portable(config)
    assert travels == {"_target_": "x", "path": f"{GIVEN}clip", "inner": [{"path": "owner/model"}]}
    back = _located(travels, tmp_path, tmp_path / "clip")
    assert back == config
