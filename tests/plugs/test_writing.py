"""A finished run becomes a plug without anything of its decoder or of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockdec.caption import main as caption
from lockdec.encoders.efficientnet import EfficientNetLite0
from lockdec.encoders.features import Features
from lockdec.encoders.sound import LogMel
from lockdec.encoders.together import Together
from lockdec.evaluation.finished import FinishedRun
from lockdec.export import main as export
from lockdec.plugs.folder import _located
from lockdec.plugs.record import GIVEN
from lockdec.plugs.writing import _licences, _portable
from lockdec.store import METADATA, Artifact
from lockdec.store.writing import write_json
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


def test_pictures_of_the_data_do_not_travel(tmp_path: Path) -> None:
    """An encoder that was pretrained in the run has drawn reconstructions of the user's pictures."""
    write_json(tmp_path / METADATA, {"files": {"encoder.json": {}, "metrics.csv": {}, "reconstructions.png": {}}})
    artifact = Artifact(tmp_path, "pretrain_vae", "0" * 64, metrics={}, config={}, parents={}, seconds=0, reused=True)
    assert FinishedRun(tmp_path, {}, {}).needed_files(artifact) == ["encoder.json"]


def test_the_licences_of_what_lockdec_reads_are_known() -> None:
    several = Together({"drawing": EfficientNetLite0(), "mel": LogMel()})
    assert _licences("EmojiNames", several) == {
        "data": "names Unicode-3.0",
        "encoder": "weights of EfficientNetLite0: Apache-2.0; weights of LogMel: none",
    }
    assert _licences(None, Features(dim=3)) == {
        "data": "not known to lockdec: see where it comes from",
        "encoder": "weights of Features: not known to lockdec: see where it comes from",
    }
