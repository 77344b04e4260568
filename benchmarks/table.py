"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.side_by_side import BEFORE, OURS, PEAK


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def table(section: Mapping[str, Any]) -> str:
    """The table of a section of the results: a suite or a profile."""
    return profile_table(section) if "shares" in section else suite_table(section)


def profile_table(section: Mapping[str, Any]) -> str:
    """The share of each kind of work, the largest first."""
    shares = section["shares"]
    threads = f"{section['threads']} thread{'' if section['threads'] == 1 else 's'}"
    row = [f"{share:.0%}" for share in shares.values()]
    return f"{markdown(list(shares), [row])}\n\nOf {section['milliseconds']:,.1f} ms a step, {threads}."


def suite_table(section: Mapping[str, Any]) -> str:
    """One row per subject, lockdec first, with title and machine below."""
    subjects, unit = section["subjects"], section["unit"]
    ours = subjects.get(OURS, {})
    rows = []
    for name in sorted(subjects, key=lambda name: name != OURS):
        one = subjects[name]
        memory = one["peak_memory_mb"]
        rows.append(
            [
                f"lockdec at {section['against']}" if name == BEFORE else name,
                quantity(one["per_second"]["median"]),
                between(one.get("ratio")),
                verdict(one.get("ratio"), section["goals"].get(name)),
                f"{memory:,.0f} MB" + memory_verdict(ours, memory, section["memory_goals"].get(name)),
                share(one.get("share_of_peak"), section["goals"].get(PEAK) if name == OURS else None),
            ]
        )
    machine, versions = section["machine"], section["versions"]
    where = (
        f"{section['title']}. Measured {section['measured']} on {machine['device']}, {section['threads']} "
        f"thread{'' if section['threads'] == 1 else 's'}, in {section['rounds']} rounds; the matrix product reaches "
        f"{section['matmul_gflops']:,.0f} GFLOP/s. {', '.join(f'{name} {value}' for name, value in versions.items())}."
    )
    head = ["", f"{unit} / s", "lockdec's speed-up", "goal", "peak memory", "share of the matmul peak"]
    return f"{markdown(head, rows)}\n\n{where}"


def quantity(value: float) -> str:
    """A rate with three significant digits, or all digits before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def between(ratio: Mapping[str, float] | None) -> str:
    """A ratio with its quartiles."""
    return "" if ratio is None else f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def verdict(ratio: Mapping[str, float] | None, goal: float | None) -> str:
    """The goal, and whether the median meets it."""
    if ratio is None or goal is None:
        return ""
    return f"{round(goal, 3):g}: {'met' if ratio['median'] >= goal else '**missed**'}"


def memory_verdict(ours: Mapping[str, Any], memory: float, goal: float | None) -> str:
    """lockdec's memory relative to this subject's, where there is a goal for it."""
    if goal is None:
        return ""
    times = ours["peak_memory_mb"] / memory
    return f"; lockdec takes {times:.3f} times as much, goal {goal:g}: {'met' if times <= goal else '**missed**'}"


def share(found: Mapping[str, float] | None, goal: float | None) -> str:
    """The share of the peak, and the goal for it where there is one."""
    if found is None:
        return ""
    judged = "" if goal is None else f", goal {goal:.0%}: {'met' if found['median'] >= goal else '**missed**'}"
    return f"{found['median']:.0%}{judged}"
