"""One plug, made once from the tiny run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from lockdec.evaluation.finished import find_run
from lockdec.plugs.writing import write_plug
from tests.conftest import TinyRun


@pytest.fixture(scope="session")
def plug(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a plug; tests read it and leave it as it is."""
    folder = tmp_path_factory.mktemp("plugs") / "plug"
    write_plug(find_run(tiny.folder), folder)
    return folder


@pytest.fixture
def copied(plug: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(plug, tmp_path / "plug")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "x.png")
    return tmp_path / "x.png"
