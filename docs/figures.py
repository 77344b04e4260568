"""Which tables of README.md and docs/ still follow from today's code: python docs/figures.py [--make] [PAGE ...]

Every table with figures and every picture says where it comes from (`placeholders.py`); one that does not is an error.
Where it comes from runs, the artifact keys of each run are compared with those that the same overrides have today.
`--make` runs the sweeps again whose keys changed, by the commands that the page shows, and fills in the page. Sweeps
resume, so that it can be stopped and started again.
"""

from __future__ import annotations

import argparse
import csv
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from measured import PARTS
from omegaconf.errors import OmegaConfBaseException
from placeholders import ORIGIN, PLACE

from lockdec.config.building import Builder
from lockdec.config.schema import config_folder, register
from lockdec.errors import LockdecError
from lockdec.pipeline.assembling import assemble

ROOT = Path(__file__).parent.parent
FIGURE = re.compile(r"(?<![\w.`=/])\d+\.\d+(?![\w.])")  # a number as results have them
FEWEST = 2  # such numbers make a table one of results
OUTPUTS = "outputs/sweeps"


@dataclass(frozen=True)
class Shown:
    """A table of results or a picture in a page.

    Attributes:
        line: from 1.
        place: the name of the place that it stands in; empty outside of places.
        origin: what the page says about where it comes from; empty where it says nothing.
    """

    page: Path
    line: int
    place: str
    origin: str

    @property
    def group(self) -> str:
        """What fills the place, with others (`measured.PARTS`); empty where nothing does."""
        name = self.place.partition(" ")[0]
        return name if name in PARTS else ""

    @property
    def results(self) -> Path | None:
        """The file of runs that it comes from; None where it does not come from such a file."""
        name = self.origin.partition(",")[0]
        return self.page.parent / name if name.endswith(".csv") else None


def shown(page: Path) -> Iterator[Shown]:
    """Every table of results and every picture of a page."""
    place = origin = ""
    code, table = False, list[str]()
    lines = [*page.read_text(encoding="utf-8").splitlines(), ""]
    for number, line in enumerate(lines, start=1):
        code ^= line.lstrip().startswith("```")
        if code:
            continue
        if line.startswith("|"):
            table.append(line)
            continue
        if table and len(FIGURE.findall("\n".join(table))) >= FEWEST:
            yield Shown(page, number - len(table), place, origin)
        if table and not place:
            origin = ""
        table = []
        if said := ORIGIN.fullmatch(line):
            origin = said[1]
        elif named := PLACE.fullmatch(line):
            place, origin = ("" if named[1] == "end" else named[1]), ""
        elif line.startswith("!["):
            yield Shown(page, number, place, origin)
            origin = origin if place else ""


def pages() -> list[Path]:
    """README.md and the pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def runs(one: Shown) -> list[Mapping[str, str]]:
    """The rows of its file of runs that a place is made of."""
    results, (folders, _) = one.results, PARTS[one.group]
    assert results is not None
    with results.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "ok"]
    return [row for row in rows if fnmatch(sweep_of(row), folders)]


def sweep_of(row: Mapping[str, str]) -> str:
    """The folder of the sweep that a row is of."""
    return row["folder"].partition("/")[0]


@contextmanager
def composing() -> Iterator[None]:
    """Within, Hydra composes configs of lockdec."""
    register()
    with initialize_config_dir(str(config_folder().resolve()), version_base="1.3"):
        yield


class Today:
    """Compares runs with what the same overrides would give today."""

    def __init__(self) -> None:
        self._builder = Builder()
        self._known: dict[str, str] = {}

    def differs(self, row: Mapping[str, str]) -> str:
        """Why a run does not follow from today's code, in words; empty where it still does."""
        keys = {name.split(".")[1]: value for name, value in row.items() if re.fullmatch(r"stages\.\w+\.key", name)}
        run = row["overrides"] + str(sorted(keys.items()))
        if run not in self._known:
            self._known[run] = self._compare(shlex.split(row["overrides"]), keys)
        return self._known[run]

    def _compare(self, overrides: Sequence[str], keys: Mapping[str, str]) -> str:
        try:
            now = assemble(compose("config", list(overrides)), self._builder).keys
        except LockdecError as error:
            return str(error).splitlines()[0]
        except (HydraException, OmegaConfBaseException):
            return "its options are no longer there"
        changed = [name for name, key in now.items() if keys.get(name) and keys[name] != key]
        return f"{changed[0]} has another key" if changed else ""


def commands(page: Path, sweeps: set[str]) -> list[list[str]]:
    """The commands of a page that run these sweeps, as lists of words."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found = []
    for block in re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            words = shlex.split(line, comments=True) if line.startswith("python -m lockdec.run ") else []
            if sweeps & {word.removeprefix("sweep_name=") for word in words if word.startswith("sweep_name=")}:
                found.append([sys.executable, *words[1:]])
    return found


def make(page: Path, sweeps: set[str]) -> None:
    """Run a page's sweeps and fill it in; CalledProcessError where a command fails."""
    for command in commands(page, sweeps):
        print("$", shlex.join(["python", *command[1:]]), flush=True)
        subprocess.run(command, cwd=ROOT, check=True)
    subprocess.run([sys.executable, Path(__file__).parent / "measured.py", page, OUTPUTS], cwd=ROOT, check=True)


def main(chosen: Sequence[Path], remake: bool) -> int:
    """Print what no longer follows, and make it again where that is asked for.

    Returns:
        The exit status: 1 where a table or picture does not say where it comes from.
    """
    today, missing = Today(), 0
    with composing():
        for page in chosen:
            name, tables = page.relative_to(ROOT), list(shown(page))
            for one in tables:
                if not one.origin:
                    missing += 1
                    print(f"{name}:{one.line}: add <!-- origin: ... --> above it, which says where it comes from")
            by_sweep: dict[str, list[str]] = {}
            for group in dict.fromkeys(one.group for one in tables if one.results is not None and one.group):
                for row in runs(next(one for one in tables if one.group == group)):
                    by_sweep.setdefault(sweep_of(row), []).append(today.differs(row))
            stale = {sweep: Counter(filter(None, reasons)) for sweep, reasons in by_sweep.items() if any(reasons)}
            for sweep, reasons in stale.items():
                why = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
                print(f"{name}: {reasons.total()} of {len(by_sweep[sweep])} runs of {sweep} no longer follow: {why}")
            if remake and stale:
                make(page, set(stale))
    print(f"{missing} without an origin" if missing else "every table and picture says where it comes from")
    return 1 if missing else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="*", type=Path, default=pages(), metavar="PAGE")
    parser.add_argument("--make", action="store_true", help="run again what no longer follows, and fill in the pages")
    options = parser.parse_args()
    sys.exit(main([page.resolve() for page in options.pages], options.make))
