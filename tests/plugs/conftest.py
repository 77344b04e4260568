"""One plug, made once from the tiny run."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockdec.evaluation.finished import find_run
from lockdec.plugs.folder import write_plug
from tests.conftest import TinyRun


@pytest.fixture(scope="session")
def plug(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a plug; tests read it and leave it as it is."""
    folder = tmp_path_factory.mktemp("plugs") / "plug"
    write_plug(find_run(tiny.folder), folder)
    return folder
