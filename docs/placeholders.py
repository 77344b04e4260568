"""Places in a page that a command fills: the text between `<!-- NAME -->` and `<!-- end -->` is replaced.

A place begins with where its numbers come from, `<!-- origin: FILE, commit COMMIT -->`: the file of results beside the
page, and the commit that the numbers were written at. Tables and pictures outside of places have such a line, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

ORIGIN = re.compile("<!-- origin: (.+) -->")
PLACE = re.compile("<!-- ([a-z_ ]+) -->")


def names(text: str) -> list[str]:
    """The places of a page that have a function of their own, in order."""
    return [name for name in re.findall("<!-- ([a-z_]+) -->", text) if name != "end"]


def fill(text: str, fillings: Mapping[str, str], page: str, origin: str | None = None) -> str:
    """The page with each filling in its place; SystemExit if a place is missing.

    Args:
        origin: of the numbers; None where it stays what it was.
    """
    for name, filling in fillings.items():
        before, found, rest = text.partition(f"<!-- {name} -->\n")
        if not found:
            raise SystemExit(f"{page}: no place for {name}: add <!-- {name} --> and <!-- end -->")
        old, _, after = rest.partition("<!-- end -->")
        known = ORIGIN.match(old)
        said = origin or (known[1] if known else None)
        head = f"<!-- origin: {said} -->\n\n" if said else ""
        text = f"{before}{found}{head}{filling}\n<!-- end -->{after}"
    return text
