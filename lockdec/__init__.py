"""lockdec: caption what any frozen encoder encodes, by unlocking a pretrained decoder's cross-attention."""

import os
import sys

__version__ = "0.1.0"


def _leave_current_folder() -> None:
    """Remove the current folder from the places that `python -m lockdec.caption` imports from.

    Python puts it first for `-m`, so that a file `random.py` in a stranger's run would be run in place of the module
    that lockdec imports. It stays where lockdec itself is in it, as in a checkout that is not installed.
    """
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    module = sys.orig_argv[len(sys.orig_argv) - len(sys.argv)]  # Python has not filled in sys.argv[0] yet
    if module.partition(".")[0].endswith("lockdec") and not sys.flags.safe_path and sys.path[0] != home:
        del sys.path[0]


if sys.argv[:1] == ["-m"]:
    _leave_current_folder()
