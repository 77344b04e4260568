"""An export captions on its own, brings what its encoder needs, and overwrites nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import lockdec
from lockdec.caption import main
from lockdec.errors import StoreError
from lockdec.export import _Bundle, _without_home, export
from lockdec.pipeline.assembling import Assembly
from tests.conftest import TinyRun
from tests.data.user_files import write_csv
from tests.faults.warm import Warm
from tests.test_caption import captions, quick, said


def test_an_export_is_enough(tiny: TinyRun, assembled: Assembly, warm: Warm, tmp_path: Path) -> None:
    """Captioned in a process of its own, from a directory of its own, with the run out of reach."""
    data = assembled.stages["evaluate"].data  # type: ignore[attr-defined]
    rows = data.splits["test"]
    for row, picture in zip(rows, data.inputs(rows), strict=True):
        picture.save(tmp_path / f"{data.ids[row]}.png")
    wanted = {f"{name}.png": caption for name, caption in said(tiny).items()}
    export(tiny.folder, tmp_path / "out")
    exported = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path for path in exported if path.name in ("states.npy", "ids.json", "metrics.csv")]
    assert sum(path.stat().st_size for path in exported) < 2_000_000
    hidden = tiny.outputs.with_name("hidden")
    tiny.outputs.rename(hidden)
    try:
        shown = warm.lockdec("caption", "out", *wanted, "--jsonl", cwd=tmp_path)
    finally:
        hidden.rename(tiny.outputs)
    assert shown.returncode == 0, shown.stderr
    assert {row["input"]: row["caption"] for row in map(json.loads, shown.stdout.splitlines())} == wanted


def test_an_export_brings_the_encoders_own_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """States that another tool made: the inputs are ids, and the folder that holds the states travels along."""
    ids = [f"id {number}" for number in range(24)]
    states = tmp_path / "states"
    states.mkdir()
    (states / "ids.txt").write_text("\n".join(ids) + "\n")
    np.save(states / "states.npy", np.random.default_rng(0).normal(size=(24, 3, 6)).astype(np.float32))
    write_csv(tmp_path / "features", [(name, f"caption of {name}") for name in ids])
    data = ("data=folder", f"data.path={tmp_path / 'features'}", "data.modality=array")
    run = quick(tmp_path, "features", *data, "encoder=features", f"encoder.path={states}")
    wanted = said(run)
    assert captions(capsys, str(run.folder), *wanted) == wanted
    monkeypatch.setenv("HOME", str(tmp_path))
    export(run.folder, tmp_path / "out")
    told = [path.read_text() for path in (tmp_path / "out").rglob("*") if path.suffix in (".json", ".yaml")]
    assert any("~/features" in text for text in told)
    assert not any(str(tmp_path) in text for text in told)
    (tmp_path / "out").rename(tmp_path / "moved")
    states.rename(tmp_path / "hidden")
    assert captions(capsys, str(tmp_path / "moved"), *wanted) == wanted
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([str(tmp_path / "moved"), ids[0], "nobody", ids[1]])
    shown = capsys.readouterr()
    assert [line.split(":")[0] for line in shown.out.splitlines()] == ids[:2]
    assert "no id 'nobody' among its 24" in shown.err


def test_an_export_that_would_lack_a_file_of_the_encoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"1")
    with pytest.raises(StoreError, match=r"weights\.bin: the encoder reads it, and no file of it is exported \(only"):
        _Bundle(tmp_path / "out").of({"path": str(tmp_path / "weights.bin")})


def test_an_export_does_not_name_its_author(tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(tiny.outputs) in (tiny.folder / "config.yaml").read_text()
    monkeypatch.setenv("HOME", str(tiny.outputs.parent))
    next_line = export(tiny.folder, tmp_path / "out", ["mine.", "lockdec."])
    assert " --trust mine. --trust lockdec." in next_line
    for path in (tmp_path / "out").rglob("*"):
        assert path.suffix not in (".yaml", ".json") or str(tiny.outputs) not in path.read_text(), path
    assert lockdec.load(tmp_path / "out").modality == "image"
    assert f"paths.outputs=~/{tiny.outputs.name}" in (tmp_path / "out" / "result.json").read_text()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/ann/data", "~/data"),
        ("data.path='/home/ann'", "data.path='~'"),
        ("/home/anna/data", "/home/anna/data"),
        ("https://x.org/home/ann/y", "https://x.org/home/ann/y"),
    ],
)
def test_only_the_home_folder_is_shortened(text: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert _without_home({"a": [text, 3]}) == {"a": [told, 3]}


def test_an_export_overwrites_nothing(tiny: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(StoreError, match="exists already; name a new or an empty folder"):
        export(tiny.folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_store_elsewhere_is_named(tiny: TinyRun, tmp_path: Path) -> None:
    """The config of a run names its store, which need not be above it."""
    (tmp_path / "run").mkdir()
    for name in ("config.yaml", "result.json"):
        shutil.copy(tiny.folder / name, tmp_path / "run" / name)
    place = tmp_path / "out" / "stages"
    assert f"{place}: artifacts of {tiny.outputs / 'stages'}" in export(tmp_path / "run", tmp_path / "out").splitlines()
    assert "artifacts of" not in export(tiny.folder, tmp_path / "again")
