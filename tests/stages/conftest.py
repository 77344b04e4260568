"""What the tests of several stages share."""

from __future__ import annotations

import pytest

from tests.conftest import TinyRun
from tests.stages.translating import TRANSLATION, run_as


@pytest.fixture(scope="session")
def translation(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A finished run of experiment=translation."""
    return run_as(tmp_path_factory.mktemp("translation"), "first", *TRANSLATION)
