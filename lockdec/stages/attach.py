"""Attach a frozen encoder: its outputs for every input of the data, computed once and memory-mapped from then on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lockdec.data.captions import CaptionSet
from lockdec.encoders.contract import Encoder, PretrainedHere
from lockdec.encoders.encoded import EncodedSet
from lockdec.encoders.normalisation import kinds_of
from lockdec.errors import ConfigError
from lockdec.runtime.devices import place_on
from lockdec.stages.stage import Stage, Work


@dataclass(frozen=True, kw_only=True)
class Attach(Stage):
    """Encodes the data; the states and their normalisation, fitted on the training split, are the artifact.

    Attributes:
        normalise: none, standardise or whiten; or one of these for each of the encoder's groups of channels.
        batch_size: inputs encoded at a time; cannot change the result.
    """

    name: ClassVar[str] = "attach"
    version: ClassVar[int] = 1
    # An encoder's outputs do not depend on the batch: tested for every encoder. Nor do they on captions.
    neutral: ClassVar[tuple[str, ...]] = (*Stage.neutral, "batch_size", "data.case")
    code: ClassVar[tuple[str, ...]] = ("lockdec.encoders.encoded", "lockdec.encoders.normalisation")
    data: CaptionSet
    encoder: Encoder | PretrainedHere
    normalise: str | list[str]
    batch_size: int

    def parents(self, before: Mapping[str, Stage]) -> tuple[str, ...]:
        """The stage that pretrains the encoder, where one does."""
        return (self.encoder.stage,) if isinstance(self.encoder, PretrainedHere) else ()

    def check(self) -> None:
        if self.encoder.modality != self.data.modality:
            raise ConfigError(
                f"encoder: {type(self.encoder).__name__} reads {self.encoder.modality} inputs, "
                f"but data: {type(self.data).__name__} has {self.data.modality} inputs"
            )
        if isinstance(self.encoder, Encoder):
            self.encoder.check(self.data)
            kinds_of(self.normalise, len(self.encoder.groups))
        else:  # how many groups of channels it has is known once it is pretrained
            kinds_of(self.normalise, 1 if isinstance(self.normalise, str) else len(self.normalise))

    def fingerprints(self) -> dict[str, str]:
        if isinstance(self.encoder, PretrainedHere):
            return {"data": self.data.caseless_fingerprint}
        return {"data": self.data.caseless_fingerprint, "encoder": self.encoder.fingerprint}

    def make(self, work: Work) -> dict[str, Any]:
        encoder = self.encoder
        if isinstance(encoder, PretrainedHere):
            encoder = encoder.open(work.parents[encoder.stage].folder)
        before = encoder.fingerprint
        place_on(encoder, work.device)
        try:
            encoded = EncodedSet.write(work.folder, encoder, self.data, self.normalise, self.batch_size)
        finally:
            encoder.to("cpu")  # the stages that follow need the device's memory
        return {
            "encoder": {"name": type(encoder).__name__, "dim": encoder.dim, "states": encoded.max_states},
            "frozen": {"encoder_ok": encoder.fingerprint == before},
        }
