"""From a folder to a captioner: `lockdec.load`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from lockdec.errors import ConfigError
from lockdec.evaluation.finished import FinishedRun, find_run, open_captioner
from lockdec.library.captioner import Captioner
from lockdec.library.inputs import several
from lockdec.plugs.folder import open_plug, open_plugs
from lockdec.plugs.record import RECORD


def load(
    path: str | Path | None = None,
    *,
    plugs: str | Path | Sequence[str | Path] = (),
    decoder: str | Path | None = None,
    encoder: str | Path | None = None,
    device: torch.device | str = "cpu",
    trust: str | Sequence[str] = (),
    allow_download: str | Collection[str] = (),
) -> Captioner:
    """The captioner of a finished run, or of a plug and its decoder.

    Nothing in the folder is executed or unpickled, and nothing is downloaded unless you name it.

    Args:
        path: the folder of a run; of a sweep, whose best cell is taken; of an export; or one with runs in it, of which
            the newest that has finished is taken; or the folder of a plug.
        plugs: in the place of a path: the folders of several plugs on one decoder. Each encoder reads the whole input,
            or, of an example in several parts, its own; what the plugs add to each layer is summed.
        decoder: of a plug: the folder of a run, an export or a checkpoint, a GGUF file, or the id of a model on the
            Hugging Face hub, which is then downloaded.
        encoder: of a plug whose encoder reads files of yours: their folder.
        device: where encoder and decoder compute, as torch names it.
        trust: also build encoders from modules that start with one of these prefixes, as in `trust=["my_package."]`.
        allow_download: models of the Hugging Face hub that may be downloaded if the encoder is made of them.

    Raises:
        StoreError: there is no finished run, its files are missing or damaged or do not belong together, or a plug was
            made for another decoder or encoder.
        ConfigError: the encoder's class is not trusted or cannot be built, or there is no such device.
    """
    if (path is None) == (not plugs):
        raise ConfigError("load: name either a folder or, as plugs=[...], several plugs")
    trust, allow_download = several(trust), several(allow_download)
    if plugs:
        plugs = several(plugs)
        if decoder is None:
            raise ConfigError(f"plugs={[str(plug) for plug in plugs]}: name the decoder that they were made for, as in "
                              'decoder="outputs/runs/default"')  # fmt: skip
        folders = [Path(plug) for plug in plugs]
        return Captioner(open_plugs(folders, decoder, encoder, trust, allow_download), usable(device))
    assert path is not None
    folder = Path(path)
    if not (folder / RECORD).is_file():
        if decoder is not None or encoder is not None:
            raise ConfigError(f"{path}: only a plug takes a decoder or an encoder, and there is no {RECORD} here")
        return open_run(find_run(folder), device, trust, allow_download)
    if decoder is None:
        raise ConfigError(f"{path}: a plug has no decoder of its own: name the one that it was made for, as in "
                          "decoder=\"outputs/runs/default\" or --decoder outputs/runs/default")  # fmt: skip
    return Captioner(open_plug(folder, decoder, encoder, trust, allow_download), usable(device))


def open_run(
    run: FinishedRun,
    device: torch.device | str = "cpu",
    trust: Sequence[str] = (),
    allow_download: Collection[str] = (),
) -> Captioner:
    """As `load`, of a run that has been found."""
    return Captioner(open_captioner(run, trust, allow_download), usable(device), run)


def usable(device: torch.device | str) -> torch.device:
    """The device; ConfigError if this machine does not have it."""
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).tolist()  # a device without memory holds nothing
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ConfigError(f"device={device}: torch cannot compute there ({reason})") from error
    return found
