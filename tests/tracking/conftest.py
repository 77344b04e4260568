"""W&B without an account."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lockdec.tracking import weights_and_biases
from tests.tracking.wandb_server import KEY


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A W&B that has not been set up in this process, and will not stay."""
    import wandb

    wandb.teardown()
    monkeypatch.setattr(weights_and_biases, "_unreachable", set())
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield monkeypatch
    wandb.teardown()
