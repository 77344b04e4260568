"""How much the attach stage adds to the forward passes of its encoder.

The drawings are rendered beforehand, so that the difference is lockdec's own work: preprocessing, writing the states,
fitting and applying their normalisation. A third subject also renders them, as the stage has to.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch

from benchmarks.side_by_side import Subject
from lockdec.data.captions import CaptionSet, Input
from lockdec.data.openmoji import OpenMoji
from lockdec.encoders.efficientnet import EfficientNetLite0
from lockdec.encoders.encoded import EncodedSet

DRAWINGS, BATCH = 640, 16
NORMALISE = ("whiten", "standardise", "standardise")
TITLE = "Encoding 640 drawings of 128 x 128 pixels by EfficientNet-Lite0 up to block 10, in batches of 16"
UNIT = "drawings"
GOALS = {"forward passes": 0.9}


class Rendered(CaptionSet):
    """The same drawings, kept as pictures in memory."""

    def __init__(self, drawings: CaptionSet) -> None:
        super().__init__(
            ids=drawings.ids,
            captions=drawings.captions,
            splits=drawings.splits,
            modality=drawings.modality,
            inputs_fingerprint="rendered",
        )
        self._pictures = drawings.inputs(range(len(drawings)))

    def inputs(self, indices: Sequence[int]) -> list[Input]:
        """The pictures of these rows."""
        return [self._pictures[row] for row in indices]


@cache
def encoder() -> EfficientNetLite0:
    """The default encoder."""
    return EfficientNetLite0(128, ["stem", 10], grid=8, position=True)


def drawings() -> OpenMoji:
    """A part of the default data."""
    return OpenMoji(resolution=128, limit=DRAWINGS)


def writing(data: CaptionSet) -> Subject:
    """Encode and store as the attach stage does."""
    network = encoder()

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder:
            EncodedSet.write(Path(folder), network, data, NORMALISE, BATCH)

    return Subject(write, work=len(data))


def forward_passes() -> Subject:
    """The network alone, on preprocessed tensors in the same batches."""
    network, pictures = encoder(), drawings().inputs(range(DRAWINGS))
    batches = [network.preprocess(pictures[start : start + BATCH]) for start in range(0, DRAWINGS, BATCH)]

    @torch.no_grad()
    def run() -> None:
        for batch in batches:
            network(batch)

    return Subject(run, work=DRAWINGS)


def subjects() -> dict[str, Callable[[], Subject]]:
    """Encoding and storing; the network alone; rendering included."""
    return {
        "lockdec": lambda: writing(Rendered(drawings())),
        "forward passes": forward_passes,
        "lockdec, rendering included": lambda: writing(drawings()),
    }
