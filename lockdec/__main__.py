"""The command `lockdec`: one of the commands below, or `lockdec.run` with the given overrides; alone, it lists them.

As an installed script it imports nothing from the current folder, unlike `python -m lockdec`: with `-m`, Python itself
imports some modules before lockdec can leave that folder out.
"""

from __future__ import annotations

import sys
from importlib import import_module

from lockdec.terminal import forgive

COMMANDS = {  # name: module with a `main`, and what it does
    "run": ("lockdec.run", "run the pipeline, or sweep over options with -m"),
    "caption": ("lockdec.caption", "caption new inputs with a finished run"),
    "export": ("lockdec.export", "export a finished run to one folder"),
    "play": ("lockdec.play.__main__", "caption on a page of this machine"),
    "plugs": ("lockdec.plugs.__main__", "list, show and share plugs"),
    "fetch": ("lockdec.fetch", "download a decoder or pictures that a package carries"),
    "report": ("lockdec.report.__main__", "rebuild the report of runs or sweeps"),
    "store": ("lockdec.store.__main__", "list, verify and remove artifacts"),
    "dashboard": ("lockdec.tracking.dashboard", "make a W&B workspace"),
}


def main() -> None:
    """Run the command that the first argument names; without one, list them. Other arguments are overrides of `run`."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"  # and no run, which takes minutes
    if name in ("-h", "--help"):
        forgive()
        for command, (_, about) in COMMANDS.items():
            print(f"lockdec {command:<10} {about}")
        print("\n`lockdec COMMAND --help` says more; `lockdec OVERRIDE...` is `lockdec run OVERRIDE...`.")
        return
    if name in COMMANDS:
        del sys.argv[1:2]
    sys.exit(import_module(COMMANDS.get(name, COMMANDS["run"])[0]).main())


if __name__ == "__main__":
    main()
