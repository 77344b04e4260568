"""What lockdec is made of: every dependency pinned, compromised releases excluded, every licence listed."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def pins() -> dict[str, str]:
    """The pinned version by package."""
    lines = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!+-]+", line) for line in lines), "every line pins one version"
    return {str(canonicalize_name(name)): pinned for name, _, pinned in (line.partition("==") for line in lines)}


def needed() -> dict[str, str]:
    """The installed version of everything that lockdec with all its extras needs, by package."""
    asked = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    open_, found = [Requirement(line) for line in asked if not line.startswith("lockdec[")], dict[str, str]()
    while open_:
        requirement = open_.pop()
        name = str(canonicalize_name(requirement.name))
        extras = ["", *requirement.extras]
        if name in found or (requirement.marker and not any(requirement.marker.evaluate({"extra": e}) for e in extras)):
            continue
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            pytest.fail(f"{name} is needed and not installed")
        found[name] = installed.version
        for line in installed.requires or []:
            inner = Requirement(line)
            if not inner.marker or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                open_.append(inner)
    return found


def test_every_dependency_is_pinned_at_the_version_that_is_tested() -> None:
    """But for what torch needs for CUDA: the tested torch is the CPU's, which needs none of it."""
    pinned = pins()
    missing = {name: version for name, version in needed().items() if pinned.get(name) != version.split("+")[0]}
    assert {name for name in missing if not name.startswith(("cuda-", "nvidia-", "triton"))} == set()


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_compromised_releases_are_excluded(version: str) -> None:
    requirement = next(r for r in map(Requirement, PROJECT["dependencies"]) if r.name == "lightning")
    assert version not in requirement.specifier
    assert pins()["lightning"] in requirement.specifier
    assert pins()["pytorch-lightning"] not in ("2.6.2", "2.6.3")


def test_notice_lists_the_licence_of_every_dependency_and_of_the_data() -> None:
    notice = (REPOSITORY / "NOTICE").read_text()
    section = import_module("docs.licences").section  # which mypy knows as `licences`, as docs/ calls it
    assert section() in notice, "run make notice"
    for data in ("OpenMoji", "Unicode", "Wikipedia", "EfficientNet-Lite0"):
        assert data in notice
