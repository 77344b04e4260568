"""What several test files need: configs composed as the command line does, and one finished tiny run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from lockdec.config.schema import config_folder, register


def composed(*overrides: str) -> DictConfig:
    """The config that `python -m lockdec.run` gets from these overrides."""
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("config", overrides=list(overrides))


@dataclass(frozen=True)
class TinyRun:
    """A finished run of the real pipeline at its smallest.

    Attributes:
        outputs: its `paths.outputs`; other runs may share the store in it.
        folder: of the run.
        result: what result.json holds.
    """

    outputs: Path
    folder: Path
    result: dict[str, Any]


def run_tiny(outputs: Path, name: str, *overrides: str) -> TinyRun:
    """Run the tiny pipeline in this process."""
    from lockdec.pipeline.running import run

    arguments = ("debug=tiny", f"paths.outputs={outputs}", f"name={name}", *overrides)
    folder = outputs / "runs" / name
    return TinyRun(outputs, folder, run(composed(*arguments), folder, arguments))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """One tiny run, made once; tests read it and leave it as it is."""
    return run_tiny(tmp_path_factory.mktemp("tiny"), "first")
