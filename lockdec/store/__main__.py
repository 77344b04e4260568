"""`lockdec store list|verify|prune|gc`: list artifacts, verify them, and free disk space."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lockdec.errors import LockdecError, said, visible
from lockdec.store.keeping import DAY, Entry, entries, leftovers, problems, remove, unreferred
from lockdec.store.writing import format_bytes
from lockdec.terminal import forgive


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Its status is 1 if an artifact is damaged, or something cannot be read or removed."""
    given = _parser().parse_args(arguments)
    forgive()
    try:
        listed = entries(given.outputs, given.runs, given.stores)
        if given.action == "list":
            return _list(listed)
        if given.action == "verify":
            return _verify(given.outputs, listed)
        if given.action == "prune":
            going = leftovers(given.outputs, listed, given.older_than * DAY)
        else:
            going = unreferred(listed, given.keep, given.older_than * DAY, given.referred)
        for entry in going:
            if not given.dry_run:
                remove(given.outputs, entry)
            print(f"{'would remove' if given.dry_run else 'removed'} {_line(entry)}")
        print(_total(going))
    except (LockdecError, OSError) as error:
        print(f"lockdec: {said(error)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lockdec store", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    about = {
        "list": "show each folder with its size, the time since its last use, and how many runs refer to it",
        "verify": "read every file of every artifact and compare it with its hash",
        "prune": "remove artifacts set aside as damaged, and unfinished ones that no process is working on",
        "gc": "remove artifacts that no run's result.json refers to",
    }
    for name, text in about.items():
        action = actions.add_parser(name, help=text, description=text)
        outputs = Path(os.environ.get("LOCKDEC_OUTPUTS", "outputs"))
        action.add_argument(
            "--outputs",
            metavar="DIR",
            type=Path,
            default=outputs,
            help="the folder that contains stages/ (%(default)s)",
        )
        action.add_argument(
            "--runs", metavar="DIR", type=Path, action="append", default=[], help="more runs that use this store"
        )
        action.add_argument(
            "--stores",
            metavar="DIR",
            type=Path,
            action="append",
            default=[],
            help="another store that the runs use (paths.stores); nothing in it is removed",
        )
        if name in ("prune", "gc"):
            days = 7.0 if name == "prune" else 1.0
            action.add_argument(
                "--older-than",
                metavar="DAYS",
                type=float,
                default=days,
                help="keep what was used more recently; a run in progress has no result.json yet (%(default)s)",
            )
            action.add_argument("-n", "--dry-run", action="store_true", help="only list what would be removed")
        if name == "gc":
            action.add_argument(
                "--keep",
                metavar="STAGE/KEY",
                action="append",
                default=[],
                help="also keep these; * matches anything (pretrain/*)",
            )
            action.add_argument("--referred", action="store_true", help="also remove artifacts that runs refer to")
    return parser


def _list(listed: Sequence[Entry]) -> int:
    for entry in listed:
        print(_line(entry))
    print(_total(listed))
    return 0


def _verify(outputs: Path, listed: Sequence[Entry]) -> int:
    wrong = list(problems(outputs, listed))
    for entry, problem in wrong:
        print(visible(f"damaged {entry.folder}: {problem}"))
    whole = sum(entry.state in ("whole", "shared") for entry in listed)
    print(f"{whole - len(wrong)} of {whole} artifacts match their hashes")
    if wrong:
        print("The next run that needs a damaged artifact sets it aside and makes it again.")
    return 1 if wrong else 0


def _total(entries: Sequence[Entry]) -> str:
    folders = "1 folder" if len(entries) == 1 else f"{len(entries)} folders"
    return f"{folders}, {format_bytes(sum(entry.bytes for entry in entries))}"


def _line(entry: Entry) -> str:
    runs = "1 run" if len(entry.runs) == 1 else f"{len(entry.runs)} runs"
    runs = runs if entry.state in ("whole", "shared") else entry.state
    runs += f", in {entry.folder.parent.parent}" if entry.state == "shared" else ""
    size, days = format_bytes(entry.bytes), entry.age / DAY
    return visible(f"{entry.stage:<16} {entry.key[:12]}  {size:>9}  {days:>6.1f} days  {runs}")


if __name__ == "__main__":
    sys.exit(main())
