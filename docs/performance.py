"""Fill in the tables of docs/performance.md: python docs/performance.py [benchmarks/results/DEVICE.json ...]

`<!-- today -->` is a table of every suite beside its peers, `<!-- suites -->` says what each suite does and where it
was measured, `<!-- elsewhere -->` compares other machines with it, and any other place is the table of the section of
that name in the results (`python -m benchmarks` and `python -m benchmarks.profile` write them). Without arguments all
results are read; the device with most suites comes first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from placeholders import fill, names

from benchmarks.machines import CHOSEN, DEFAULT, LIBRARIES
from benchmarks.side_by_side import OURS, PEAK
from benchmarks.table import between, markdown, memory_verdict, quantity, table, verdict

PAGE = Path(__file__).with_suffix(".md")
RESULTS = PAGE.parent.parent / "benchmarks" / "results"
Sections = Mapping[str, Any]


def suites(sections: Sections) -> dict[str, Any]:
    """The suites as they are today: neither profiles nor measurements against an earlier commit."""
    return {name: found for name, found in sections.items() if "subjects" in found and not found["against"]}


def today(sections: Sections) -> str:
    """A row for each suite and peer: lockdec's rate, the peer's, their ratio, the goal and both peaks of memory."""
    rows = []
    for name, section in suites(sections).items():
        ours = section["subjects"][OURS]
        for peer, other in section["subjects"].items():
            if peer == OURS:
                continue
            ratio, memory = other.get("ratio"), other["peak_memory_mb"]
            rows.append(
                [
                    f"`{name}`",
                    f"{quantity(ours['per_second']['median'])} {section['unit']} / s",
                    peer,
                    quantity(other["per_second"]["median"]),
                    between(ratio),
                    verdict(ratio, section["goals"].get(peer)),
                    f"{ours['peak_memory_mb']:,.0f} / {memory:,.0f} MB"
                    + memory_verdict(ours, memory, section["memory_goals"].get(peer)),
                ]
            )
        if PEAK in section["goals"]:
            share = ours["share_of_peak"]
            rows.append(
                [f"`{name}`", "", "the matrix product", "", between(share), verdict(share, section["goals"][PEAK]), ""]
            )
    head = [
        "suite",
        "lockdec",
        "compared with",
        "its rate",
        "lockdec's speed-up",
        "goal",
        "memory: lockdec / peer",
    ]
    return markdown(head, rows)


def elsewhere(first: Sections, others: Sequence[Sections]) -> str:
    """For each other machine what its products are like, and its speed-ups beside those of the first."""
    parts = []
    for sections in others:
        found, both = suites(sections), sections[LIBRARIES]
        rows = []
        for name, section in found.items():
            for peer, other in section["subjects"].items():
                if peer != OURS and peer in section["goals"]:
                    here = first.get(name, {}).get("subjects", {}).get(peer, {}).get("ratio")
                    goal = verdict(other.get("ratio"), section["goals"].get(peer))
                    rows.append([f"`{name}`", peer, between(other.get("ratio")), goal, between(here)])
        head = ["suite", "compared with", "lockdec's speed-up there", "goal", "in the table above"]
        where = (
            f"{both['machine']['device']}: matrix products at {both[CHOSEN]:,.0f} GFLOP/s, "
            f"{both[CHOSEN] / both[DEFAULT]:.2f} times as fast as by torch's default library. "
            f"Measured {both['measured']}, torch {both['versions']['torch']}."
        )
        parts.append(f"{markdown(head, rows)}\n\n{where}")
    return "\n\n".join(parts)


def described(sections: Sections) -> str:
    """What each suite does, with its threads and rounds; then the machine and the versions, once where all agree."""
    found = suites(sections)
    lines = [
        f"- `{name}`: {section['title']} ({section['threads']} thread{'' if section['threads'] == 1 else 's'}, "
        f"{section['rounds']} rounds; matrix product {section['matmul_gflops']:,.0f} GFLOP/s)."
        for name, section in found.items()
    ]
    places = dict.fromkeys(
        f"Measured {section['measured']} on {section['machine']['device']}. "
        + ", ".join(f"{name} {version}" for name, version in section["versions"].items())
        + "."
        for section in found.values()
    )
    return "\n".join(lines) + "\n\n" + "\n\n".join(places)


def main(results: list[Path]) -> None:
    """Write the page's tables; a place without results says so."""
    devices: list[Sections] = [json.loads(path.read_text(encoding="utf-8")) for path in results]
    devices.sort(key=lambda sections: len(suites(sections)), reverse=True)
    text = PAGE.read_text(encoding="utf-8")
    fillings = {}
    for name in names(text):
        if name in ("today", "suites"):
            found = [(today if name == "today" else described)(sections) for sections in devices[:1]]
        elif name == "elsewhere":
            found = [elsewhere(devices[0], devices[1:])] if devices[1:] else []
        else:
            found = [table(sections[name]) for sections in devices[:1] if name in sections]
        fillings[name] = "\n\n".join(found) or f"*`{name}` has not been measured yet.*"
    PAGE.write_text(fill(text, fillings, PAGE.name), encoding="utf-8")


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:]] or sorted(RESULTS.glob("*.json")))
