"""List, show and share plugs: `lockdec plugs list|show|push|pull`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lockdec.errors import LockdecError, StoreError, visible, visible_lines
from lockdec.terminal import forgive, plain_errors

DESCRIPTION = """\
List, show and share plugs. `lockdec export RUN OUT --plug` writes one, and `lockdec caption PLUG INPUT --decoder RUN`
uses it.

  list FOLDER...       the plugs in some folders
  show PLUG            what a plug is, and what it reaches
  push PLUG OWNER/NAME upload a plug to the Hugging Face hub, with the token of `hf auth login`
  pull OWNER/NAME OUT  download one, and check it
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; errors that the user can fix end the process with one plain line."""
    options = _parser().parse_args(arguments)
    forgive()
    with plain_errors():
        print(visible_lines(_answer(options)))


def _answer(options: argparse.Namespace) -> str:
    from lockdec.plugs.folder import read_plug
    from lockdec.plugs.hub import pull, push
    from lockdec.plugs.record import CARD, RECORD
    from lockdec.store.reading import MOST_BYTES, read_text

    if options.command == "list":
        if absent := [place for place in options.folders if not place or not Path(place).is_dir()]:
            raise StoreError(f"{absent[0]!r}: no such folder")
        found = sorted({path.parent for place in options.folders for path in Path(place).glob(f"**/{RECORD}")})
        return "\n".join(map(_line, found)) or "no plugs there"
    if options.command == "show":
        read_plug(Path(options.plug))
        return read_text(Path(options.plug) / CARD, MOST_BYTES)
    if options.command == "push":
        return f"{options.plug}: uploaded to {push(Path(options.plug), options.repository, options.private)}"
    pull(options.repository, Path(options.out), options.revision)
    return f"{options.out}: {_line(Path(options.out))}"


def _line(folder: Path) -> str:
    """A plug in a line, or what is wrong with it."""
    from lockdec.plugs.folder import read_plug

    try:
        record = read_plug(folder)
    except LockdecError as error:
        return " ".join(str(error).split())
    size = sum(file.bytes for file in record.files.values()) / 1e6
    score = f", token F1 {record.metrics['token_f1']:.3f}" if "token_f1" in record.metrics else ""
    return visible(
        f"{folder}: {record.name}, {record.encoder.name} into the decoder {record.decoder.fingerprint[:12]}, "
        f"{size:.1f} MB{score}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lockdec plugs", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="the plugs in some folders")
    listing.add_argument("folders", metavar="FOLDER", nargs="+")
    showing = commands.add_parser("show", help="what a plug is, and what it reaches")
    showing.add_argument("plug", metavar="PLUG")
    pushing = commands.add_parser("push", help="upload a plug to the Hugging Face hub")
    pushing.add_argument("plug", metavar="PLUG")
    pushing.add_argument("repository", metavar="OWNER/NAME")
    pushing.add_argument("--private", action="store_true", help="if the repository is created, make it private")
    pulling = commands.add_parser("pull", help="download a plug from the Hugging Face hub")
    pulling.add_argument("repository", metavar="OWNER/NAME")
    pulling.add_argument("out", metavar="OUT", help="the folder to write; new or empty")
    pulling.add_argument("--revision", help="a branch, tag or commit")
    return parser


if __name__ == "__main__":
    main()
