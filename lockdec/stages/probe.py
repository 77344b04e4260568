"""Probe an encoder: which attributes of the inputs a linear classifier reads off its mean states, without a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lockdec.config.schema import FewshotConfig
from lockdec.console import printable, tell_once
from lockdec.data.captions import CaptionSet
from lockdec.data.fewshot import support_set
from lockdec.encoders.encoded import EncodedSet
from lockdec.errors import ConfigError
from lockdec.evaluation.attributes import AttributeReader, lexicon_of, require_attributes, unmentioned
from lockdec.evaluation.probing import LinearProbe, commonest
from lockdec.stages.attach import Attach
from lockdec.stages.stage import Stage, Work


@dataclass
class ProbeConfig:
    """What is probed.

    Attributes:
        split: `val` to choose settings, `test` to report.
        attributes: as in `evaluate.attributes`; None for those that the data declare.
    """

    split: str = "test"
    attributes: Any = None

    def check(self) -> None:
        """Raise ConfigError where a value is not known."""
        if self.split not in ("val", "test"):
            raise ConfigError(f"probe.split={self.split} is not one of: val, test")
        require_attributes("probe.attributes", self.attributes)


@dataclass(frozen=True, kw_only=True)
class Probe(Stage):
    """Fits a linear classifier for each attribute, on the inputs of the support set and on all of the training split.

    The attributes of an input are those of its first caption, as in `attributes` of an evaluation, and inputs whose
    caption does not mention an attribute do not count for it. `commonest` is the share of the held-out inputs that
    have the value that most training inputs have.
    """

    name: ClassVar[str] = "probe"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[type[Stage], ...]] = (Attach,)
    section = ProbeConfig
    code: ClassVar[tuple[str, ...]] = (
        "lockdec.data.fewshot",
        "lockdec.evaluation.attributes",
        "lockdec.evaluation.probing",
    )
    data: CaptionSet
    fewshot: FewshotConfig
    settings: ProbeConfig

    def check(self) -> None:
        if not lexicon_of(self.data, self.settings.attributes):
            raise ConfigError(
                f"probe: data: {type(self.data).__name__} declares no attributes; name their words, as in "
                "probe.attributes={colour: [red, dark green], size: [small, large]}"
            )
        unmentioned("probe.attributes", self.settings.attributes, self.data)

    def fingerprints(self) -> dict[str, str]:
        return {"data": self.data.fingerprint}

    def make(self, work: Work) -> dict[str, Any]:
        if missing := unmentioned("probe.attributes", self.settings.attributes, self.data):
            tell_once(f"  {work.stage}: no caption has {printable(', '.join(missing))}")
        encoded = EncodedSet.open(work.parent(Attach).folder)
        support = support_set(self.data, self.fewshot.shots, self.fewshot.support_seed)
        known = {"support": [pair.index for pair in support], "train": list(self.data.splits["train"])}
        held_out = list(self.data.splits["val" if self.settings.split == "val" else "test"])
        states = {name: encoded.pooled(rows) for name, rows in {**known, "held_out": held_out}.items()}
        reader = AttributeReader(lexicon_of(self.data, self.settings.attributes))
        values = {row: reader.read(self.data.captions[row][0]) for row in (*known["train"], *held_out)}
        found: dict[str, dict[str, float]] = {"commonest": {}, "support": {}, "train": {}}
        for name in reader.attributes:
            asked = [place for place, row in enumerate(held_out) if values[row][name]]
            right = [values[held_out[place]][name] for place in asked]
            for inputs, rows in known.items():
                told = [place for place, row in enumerate(rows) if values[row][name]]
                if not asked or not told:
                    continue
                labels = [values[rows[place]][name] for place in told]
                probe = LinearProbe(states[inputs][told], labels)
                found[inputs][name] = _accuracy(probe(states["held_out"][asked]), right)
                if inputs == "train":
                    found["commonest"][name] = _accuracy([commonest(labels)] * len(asked), right)
        return {"probe": {**found, "evaluated": self.settings.split}}


def _accuracy(said: Sequence[tuple[str, ...]], right: Sequence[tuple[str, ...]]) -> float:
    return sum(one == other for one, other in zip(said, right, strict=True)) / len(right)
