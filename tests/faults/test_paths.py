"""Names and links in files from a stranger lead to no other file.

lockdec reads no archives, so there is no member of one that could climb out with `..`; the nearest thing to it is the
name of a file in artifact.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from lockdec.data.drawings import read_svg
from lockdec.errors import ConfigError, DataError, StoreError
from lockdec.evaluation.finished import find_run, open_captioner
from lockdec.export import export
from lockdec.store import METADATA, Store, canonical_json, damage
from tests.faults.conftest import with_encoder
from tests.faults.warm import Command


def publish(root: Path, files: dict[str, str]) -> tuple[Store, Path]:
    """An artifact whose own record is consistent, as a stranger would make it."""
    key = "a" * 64

    def make(folder: Path) -> dict[str, Any]:
        (folder / "weights").write_bytes(b"0123456789")
        return {}

    store = Store(root)
    folder = store.get_or_make("unlock", key, make, {}, {}).folder
    record = json.loads((folder / METADATA).read_text())
    del record["sha256"]
    for name, path in files.items():
        content = Path(path).read_bytes()
        record["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    record["sha256"] = hashlib.sha256(canonical_json(record).encode()).hexdigest()
    (folder / METADATA).write_text(json.dumps(record))
    return store, folder


@pytest.mark.parametrize("name", ["../../../secret", "/etc/hostname", "link", "folder/secret", "weights\0", "."])
def test_a_file_outside_of_an_artifact_is_no_file_of_it(name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    _, folder = publish(tmp_path / "stages", {name: "/etc/hostname" if name.startswith("/") else str(secret)})
    (folder / "link").symlink_to(secret)
    (folder / "folder").symlink_to(tmp_path)
    assert damage(folder, "unlock", "a" * 64) == name


def test_a_file_without_a_name_is_damage(tmp_path: Path) -> None:
    """Its path is that of the folder, which is there and whole."""
    _, folder = publish(tmp_path / "stages", {})
    record = json.loads((folder / METADATA).read_text())
    del record["sha256"]
    (folder / METADATA).write_text(json.dumps(record | {"files": {"": {}}}))
    assert damage(folder, "unlock", "a" * 64) == METADATA


@pytest.mark.parametrize(
    "stage", ["../../planted", "/planted", "a/b", "..", ".", "", ".locks", "a\0b", "a\nb", "x" * 300]
)
def test_a_stage_that_is_no_name_is_refused(stage: str, tmp_path: Path, undisturbed: Command) -> None:
    """Its artifact lies ready where it points, and the export would write to the same place beside its folder."""
    run = with_encoder(
        undisturbed, tmp_path, _target_="lockdec.encoders.vae.PretrainedVAE", position=False, stage=stage
    )
    result = json.loads((run / "result.json").read_text())
    result["stages"][stage] = result["stages"]["pretrain"]
    (run / "result.json").write_text(json.dumps(result))
    try:
        for read in (lambda: export(run, tmp_path / "a" / "out"), lambda: open_captioner(find_run(run))):
            with pytest.raises(StoreError, match="cannot be the name of a stage"):
                read()
        assert not list(tmp_path.rglob("*"))
    finally:
        shutil.rmtree(run)


def test_drawings_behind_a_link_stay_where_they_are(tmp_path: Path) -> None:
    from lockdec.report.results import drawing, read
    from tests.report.runs import result, write_run

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    run = write_run(tmp_path / "run", result(), captions={"a": "b"})
    shutil.rmtree(run / "drawings", ignore_errors=True)
    (run / "drawings").symlink_to(tmp_path / "elsewhere")
    assert drawing(read([run]).runs[0], "a") is None


def test_a_file_is_not_written_through_a_link_that_was_put_there(tmp_path: Path) -> None:
    from lockdec.store.writing import write_text

    (tmp_path / "mine").write_text("mine")
    for name in ("report.html", f".report.html.{os.getpid()}.partial"):
        (tmp_path / name).symlink_to(tmp_path / "mine")
    write_text(tmp_path / "report.html", "new")
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("name", ["../../evil", "a/b", "..", ".hidden", "x" * 300, "a\nb"])
def test_a_run_is_named_after_one_folder(name: str) -> None:
    from omegaconf.errors import OmegaConfBaseException

    from lockdec.config.checking import checked
    from tests.conftest import composed

    config = composed("debug=tiny")
    for key in ("name", "sweep_name"):
        changed = config.copy()
        changed[key] = name
        with pytest.raises(ConfigError, match=rf"(?s)^{key}=.*(folder|at most)"):
            checked(changed)
        with pytest.raises(OmegaConfBaseException, match=r"names one folder|at most"):
            OmegaConf.create({"x": f"${{one_folder:{key},${{{key}}}}}", key: name}).x  # noqa: B018


@pytest.mark.parametrize(
    "inside",
    [
        '<image href="{path}" width="8" height="8"/>',
        '<image xlink:href="file://{path}" width="8" height="8"/>',
        '<use href="{path}#a"/>',
        "<style>@import url({path});</style>",
        '<rect fill="url({path}#a)"/>',
        '<feImage href = "http://127.0.0.1:9/x.png"/>',
    ],
)
def test_a_drawing_that_names_another_file_is_refused(inside: str, tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg">{inside.format(path=tmp_path / "b.png")}</svg>')
    with pytest.raises(DataError, match=r"a\.svg: refers to what is outside of it"):
        read_svg(path)


def test_an_entity_in_a_drawing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_text(
        '<!DOCTYPE svg [<!ENTITY a SYSTEM "/etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg">&a;</svg>'
    )
    with pytest.raises(DataError, match="refers to what is outside"):
        read_svg(path)
