"""`lockdec report DIR [DIR...]`: rebuild the report of runs or sweeps from their result.json files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lockdec.errors import LockdecError, said, visible
from lockdec.report.page import write_report
from lockdec.terminal import forgive


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report; print its path and what was skipped. The status is 1 when there is nothing to report."""
    parser = argparse.ArgumentParser(
        prog="lockdec report",
        description="Rebuild report.html (and results.csv, results.json for sweeps) from result.json files.",
    )
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="a run, a sweep, or a folder above them")
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        help="where to write (default: DIR itself; of several DIRs, the folder that holds them all)",
    )
    given = parser.parse_args(arguments)
    forgive()
    try:
        written = write_report(given.folders, given.output)
    except (LockdecError, OSError) as error:
        print(f"lockdec: {said(error)}", file=sys.stderr)
        return 1
    for skipped in written.skipped:
        print(visible(f"lockdec: skipped {skipped.path}: {skipped.reason}"), file=sys.stderr)
    if not written.runs:
        names = visible(", ".join(map(str, given.folders)))
        print(f"lockdec: {names}: no run here can be read; run its command again", file=sys.stderr)
        return 1
    print(f"{visible(str(written.report))} ({written.runs} run{'s' if written.runs != 1 else ''})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
