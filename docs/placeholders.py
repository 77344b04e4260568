"""Places in a page that a command fills: the text between `<!-- NAME -->` and `<!-- end -->` is replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping


def names(text: str) -> list[str]:
    """The places of a page, in order."""
    return [name for name in re.findall("<!-- ([a-z_]+) -->", text) if name != "end"]


def fill(text: str, fillings: Mapping[str, str], page: str) -> str:
    """The page with each filling in its place; SystemExit if a place is missing."""
    for name, filling in fillings.items():
        before, found, rest = text.partition(f"<!-- {name} -->\n")
        if not found:
            raise SystemExit(f"{page}: no place for {name}: add <!-- {name} --> and <!-- end -->")
        text = f"{before}{found}{filling}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    return text
