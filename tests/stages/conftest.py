"""The artifacts of one finished tiny run, by stage."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from lockdec.config.building import Builder
from lockdec.pipeline.assembling import Assembly, assemble
from lockdec.store import Artifact, Store
from tests.conftest import TinyRun, composed


@pytest.fixture(scope="session")
def made(tiny: TinyRun) -> Mapping[str, Artifact]:
    """What the stages of the tiny run have made."""
    store = Store(tiny.outputs / "stages")
    return {name: store.open(name, entry["key"]) for name, entry in tiny.result["stages"].items()}


@pytest.fixture(scope="session")
def assembled(tiny: TinyRun) -> Assembly:
    """The stages of the tiny run, built and not made."""
    return assemble(composed("debug=tiny", f"paths.outputs={tiny.outputs}"), Builder())
