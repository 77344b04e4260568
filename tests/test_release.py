"""What a release says of itself is the same in every place."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

import lockdec

ROOT = Path(__file__).parents[1]


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: dict[str, Any] = tomllib.load(file)["project"]
    return found


def test_the_version_comes_from_one_place() -> None:
    assert version("lockdec") == lockdec.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == lockdec.__version__


def test_the_changes_begin_with_this_version() -> None:
    newest = re.search(r"^## (\S+), ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == lockdec.__version__


def test_all_extras_are_every_extra_of_users() -> None:
    extras = project()["optional-dependencies"]
    [everything] = extras["all"]
    named = re.fullmatch(r"lockdec\[(.*)\]", everything)
    assert named is not None
    assert set(named[1].split(",")) == set(extras) - {"all", "bench", "dev"}
