"""python docs/licences.py (make notice): the licences of all dependencies, as they state them, into NOTICE.

Lists the packages of constraints.txt that are installed here; the entries above them, for data and weights, are manual.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
BEGIN = "Packages that lockdec is used or tested with (make notice)"
END = "End of the packages."


def section() -> str:
    """The part of NOTICE that lists packages."""
    pinned = [line.partition("==")[0] for line in (REPOSITORY / "constraints.txt").read_text().splitlines()]
    lines = [f"  {name}: {found}" for name in sorted(pinned) if "#" not in name and (found := licence(name))]
    return "\n".join([BEGIN, "", *lines, "", END])


def licence(package: str) -> str | None:
    """What an installed package states as its licence: an SPDX expression, a classifier or a short text."""
    try:
        stated: Any = metadata(package)  # an email message, whatever its stated protocol
    except PackageNotFoundError:
        return None
    if expression := stated.get("License-Expression"):
        return str(expression)
    classified = [
        line.split(" :: ")[-1] for line in stated.get_all("Classifier") or [] if line.startswith("License ::")
    ]
    named = [line for line in classified if line != "OSI Approved"]
    text = " ".join((stated.get("License") or "").split())
    return ", ".join(named) or (text if 0 < len(text) < 60 else "see the package")


def main() -> None:
    """Replace the section in NOTICE."""
    path = REPOSITORY / "NOTICE"
    before = re.sub(rf"\n*{re.escape(BEGIN)}.*", "", path.read_text(encoding="utf-8"), flags=re.DOTALL).rstrip()
    path.write_text(f"{before}\n\n{section()}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
