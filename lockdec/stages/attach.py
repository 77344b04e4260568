"""Attach a frozen encoder: its outputs for every input of the data, computed once and read by row from then on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch

from lockdec.config.schema import require_at_least
from lockdec.console import tell_once
from lockdec.data.captions import CaptionSet, spread
from lockdec.encoders.contract import Encoder, PretrainedHere, rehearse
from lockdec.encoders.encoded import EncodedSet
from lockdec.encoders.normalisation import kinds_of
from lockdec.errors import ConfigError
from lockdec.runtime.devices import place_on
from lockdec.stages.stage import Stage, Work
from lockdec.stages.training_stage import EncoderStage

_REHEARSED = 2  # inputs that are encoded before anything is pretrained
_COMPARED = 64  # inputs whose states are compared with each other


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
    neutral: ClassVar[tuple[str, ...]] = (
        *Stage.neutral,
        "batch_size",
        "data.case",
        "encoder.hidden=False",  # what a VAE is without it
        "encoder.parts.*.hidden=False",
    )
    code: ClassVar[tuple[str, ...]] = ("lockdec.encoders.encoded", "lockdec.encoders.normalisation")
    data: CaptionSet
    encoder: Encoder | PretrainedHere
    normalise: str | list[str]
    batch_size: int

    def parents(self, before: Mapping[str, Stage]) -> tuple[str, ...]:
        """The stage that pretrains the encoder, where one does."""
        return (self.encoder.stage,) if isinstance(self.encoder, PretrainedHere) else ()

    def check(self) -> None:
        require_at_least("stages.attach", self, batch_size=1)
        if self.encoder.modality != self.data.modality:
            raise ConfigError(
                f"encoder: {type(self.encoder).__name__} reads {_kind(self.encoder)} inputs, "
                f"but data: {type(self.data).__name__} has {_kind(self.data)} inputs"
            )
        if isinstance(self.encoder, Encoder):
            heard, given = self.encoder.rate, self.data.rate
            if heard is not None and given is not None and heard != given:
                raise ConfigError(
                    f"encoder: {type(self.encoder).__name__} reads {heard} samples a second, but data: "
                    f"{type(self.data).__name__} has {given}; data=folder brings sounds to data.rate={heard}"
                )
            self.encoder.check(self.data)
            kinds_of(self.normalise, len(self.encoder.groups))
        else:  # how many groups of channels it has is a matter of the stage that pretrains it
            kinds_of(self.normalise, 1 if isinstance(self.normalise, str) else len(self.normalise))

    def check_after(self, before: Mapping[str, Stage]) -> None:
        """Refuse layers that the encoder will not have, and a number of kinds that is not that of its groups."""
        if isinstance(self.encoder, PretrainedHere):
            stage = before[self.encoder.stage]
            groups = self.encoder.groups_for(stage.sizes) if isinstance(stage, EncoderStage) else None
            if groups is not None:
                kinds_of(self.normalise, len(groups))

    def rehearse(self, device: torch.device, before: Mapping[str, Stage], keys: Mapping[str, str]) -> None:
        """Encode a few inputs: an encoder that cannot must not fail only after a decoder has been pretrained."""
        if isinstance(self.encoder, Encoder):  # the weights of the other kind do not exist yet
            rows = spread(self.data.splits["train"], _REHEARSED)
            inputs = self.data.inputs(rows)
            place_on(self.encoder, device)
            try:
                rehearse(self.encoder, dict(zip((self.data.ids[row] for row in rows), inputs, strict=True)))
            finally:
                self.encoder.to("cpu")

    def fingerprints(self) -> dict[str, str]:
        return self._fingerprints

    @cached_property
    def _fingerprints(self) -> dict[str, str]:  # a frozen encoder's weights are hashed once for the cells of a plan
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
        rows = spread(self.data.splits["train"], _COMPARED)
        examined = [] if encoder.modality == "image" else rows  # no end of a picture is left out
        if cut := sum(not encoder.reads_whole(self.data.inputs([row])[0]) for row in examined):
            tell_once(
                f"  {work.stage}: {cut} of the {len(examined)} inputs examined are longer than "
                f"{type(encoder).__name__} reads; their ends are left out"
            )
        compared = encoded.batch(rows)
        if len(compared) > 1 and compared.states.eq(compared.states[:1]).all():
            tell_once(
                f"  {work.stage}: the states that {type(encoder).__name__} gives {len(compared)} inputs that were "
                "compared are all the same, so no caption can depend on its input: check the inputs and the encoder"
            )
        return {
            "encoder": {"name": type(encoder).__name__, "dim": encoder.dim, "states": encoded.max_states},
            "frozen": {"encoder_ok": encoder.fingerprint == before},
        }


def _kind(of: CaptionSet | Encoder | PretrainedHere) -> str:
    """What inputs are, in words: samples are arrays, and called sounds."""
    return of.modality if getattr(of, "rate", None) is None else "sound"
