"""lockdec: caption what any frozen encoder encodes, by unlocking a pretrained decoder's cross-attention.

    import lockdec

    captioner = lockdec.load("outputs/runs/default")
    [caption] = captioner.caption("picture.png")

`load` and what it returns are in `lockdec.library`, which is imported when it is first used.
"""

import os
import sys

TYPE_CHECKING = False  # as in `typing`, which is not imported before the current folder is left
if TYPE_CHECKING:
    from lockdec.errors import ConfigError, DataError, LockdecError, StoreError
    from lockdec.evaluation.attention_maps import Attention
    from lockdec.evaluation.scoring import Candidate, Word
    from lockdec.library.captioner import Caption, Captioner, Comparison, PartlyCaptionedError
    from lockdec.library.figure import Figure
    from lockdec.library.loading import load
    from lockdec.library.speed import accelerate
    from lockdec.library.stored import Neighbour, Shuffled
    from lockdec.version import __version__

__all__ = [
    "Attention",
    "Candidate",
    "Caption",
    "Captioner",
    "Comparison",
    "ConfigError",
    "DataError",
    "Figure",
    "LockdecError",
    "Neighbour",
    "PartlyCaptionedError",
    "Shuffled",
    "StoreError",
    "Word",
    "__version__",
    "accelerate",
    "load",
]
_PLACES = {
    "lockdec.errors": ("ConfigError", "DataError", "LockdecError", "StoreError"),
    "lockdec.evaluation.scoring": ("Candidate", "Word"),
    "lockdec.evaluation.attention_maps": ("Attention",),
    "lockdec.library.captioner": ("Caption", "Captioner", "Comparison", "PartlyCaptionedError"),
    "lockdec.library.figure": ("Figure",),
    "lockdec.library.loading": ("load",),
    "lockdec.library.speed": ("accelerate",),
    "lockdec.library.stored": ("Neighbour", "Shuffled"),
    "lockdec.version": ("__version__",),
}


def __getattr__(name: str) -> object:
    """A name of the library, imported now: commands import lockdec too, and answer --help without torch."""
    from importlib import import_module

    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'lockdec' has no attribute {name!r}")


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
