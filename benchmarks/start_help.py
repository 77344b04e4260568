"""How long --help takes, beside a bare Hydra application: python -m benchmarks start_help."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.commands import bare_application, python
from benchmarks.side_by_side import Subject

TITLE = "`python -m lockdec.run --help`, beside a bare Hydra application with as many groups and options"
UNIT = "commands"
GOALS = {"hydra": 1.0}  # 0.2 s more would be acceptable


def bare() -> Subject:
    """The bare application's help."""
    folder = Path(tempfile.mkdtemp())
    return python(str(bare_application(folder)), "--help", folder=folder)


def subjects() -> Mapping[str, Callable[[], Subject]]:
    """The command, and the bare application."""
    return {"lockdec": lambda: python("-m", "lockdec.run", "--help"), "hydra": bare}
