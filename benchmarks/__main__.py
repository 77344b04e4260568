"""Measure suites of this folder and keep the results in benchmarks/results.

python -m benchmarks                               all of them (make bench)
python -m benchmarks pretraining corpus            some of them
python -m benchmarks finetuning --against COMMIT   and an earlier lockdec

At the end it says how this machine compares with those whose results are kept there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.machines import LIBRARIES, compared, libraries
from benchmarks.side_by_side import measure
from benchmarks.table import suite_table

RESULTS = Path(__file__).parent / "results"
VERSIONS = ("torch", "lightning", "transformers", "x-transformers", "peft", "hydra-core")


def suites() -> list[str]:
    """The names of the suites: the modules of this folder that define `subjects`."""
    found = Path(__file__).parent.glob("*.py")
    return sorted(path.stem for path in found if "\ndef subjects(" in path.read_text(encoding="utf-8"))


def device_name() -> str:
    """The accelerator, or the CPU with its family, its model and its number of hardware threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = (line.partition(":") for line in info.read_text().splitlines()) if info.is_file() else ()
    facts = {name.strip(): value.strip() for name, _, value in lines}
    name = facts.get("model name", platform.machine())
    if {"cpu family", "model"} <= facts.keys():  # virtual machines leave the number out of the name
        name += f" (family {facts['cpu family']}, model {facts['model']})"
    return f"{name} with {os.cpu_count()} hardware threads"


def installed() -> dict[str, str]:
    """The versions of the packages compared, where installed."""
    found = {"Python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def keep(name: str, section: dict[str, Any]) -> Path:
    """Put a suite's section into the results of this device, replacing an earlier one."""
    path = RESULTS / f"{re.sub('[^a-z0-9]+', '-', device_name().lower())}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(dict(sorted((known | {name: section}).items())), indent=2) + "\n", encoding="utf-8")
    return path


def stamped(section: dict[str, Any]) -> dict[str, Any]:
    """A section with its date, machine and versions."""
    return {
        **section,
        "measured": datetime.now(UTC).date().isoformat(),
        "machine": {"device": device_name(), "system": platform.platform()},
        "versions": installed(),
    }


def main() -> None:
    """Measure, print the tables, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", choices=[*suites(), []], metavar="SUITE", help=", ".join(suites()))
    parser.add_argument("--threads", type=int, default=2, help="of each subject")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--against", metavar="COMMIT", help="lockdec of this commit takes part as well")
    given = parser.parse_args()
    recorded = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    here: dict[str, Any] = {LIBRARIES: stamped(dict(libraries(given.threads)))}
    keep(LIBRARIES, here[LIBRARIES])
    for name in given.suites or suites():
        section = stamped(measure(name, given.threads, given.rounds, given.against))
        key = f"{name}_before" if given.against else name
        here[key] = section
        print(f"## {key}\n\n{suite_table(section)}\n\n{keep(key, section)}\n", flush=True)
    print(f"## This machine and those recorded\n\n{compared(here, recorded)}", flush=True)


if __name__ == "__main__":
    main()
