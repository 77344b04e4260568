"""From a folder to a captioner: `lockdec.load`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from lockdec.errors import ConfigError
from lockdec.evaluation.finished import FinishedRun, find_run, open_captioner
from lockdec.library.captioner import Captioner


def load(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    trust: Sequence[str] = (),
    allow_download: Collection[str] = (),
) -> Captioner:
    """The captioner of a finished run.

    Nothing in the folder is executed or unpickled, and nothing is downloaded unless you name it.

    Args:
        path: the folder of a run; of a sweep, whose best cell is taken; of an export; or one with runs in it, of which
            the newest that has finished is taken.
        device: where encoder and decoder compute, as torch names it.
        trust: also build encoders from modules that start with one of these prefixes, as in `trust=["my_package."]`.
        allow_download: models of the Hugging Face hub that may be downloaded if the encoder is made of them.

    Raises:
        StoreError: there is no finished run, or its files are missing or damaged or do not belong together.
        ConfigError: the encoder's class is not trusted or cannot be built, or there is no such device.
    """
    return open_run(find_run(Path(path)), device, trust, allow_download)


def open_run(
    run: FinishedRun,
    device: torch.device | str = "cpu",
    trust: Sequence[str] = (),
    allow_download: Collection[str] = (),
) -> Captioner:
    """As `load`, of a run that has been found."""
    return Captioner(open_captioner(run, trust, allow_download), usable(device))


def usable(device: torch.device | str) -> torch.device:
    """The device; ConfigError if this machine does not have it."""
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ConfigError(f"device={device}: torch cannot compute there ({reason})") from error
    return found
