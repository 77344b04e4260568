"""How captions are generated and judged, as plain data; imports no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, get_type_hints

from omegaconf import MISSING

from lockdec.config.schema import require_at_least
from lockdec.errors import ConfigError
from lockdec.evaluation.attributes import require_attributes
from lockdec.transformer.configuration import MOST_SEQUENCES, STRATEGIES, GenerationConfig, require, require_choice

MBR = "mbr"
# What a stage that evaluates captions is without these keys.
NEUTRAL = ("decode.candidates=12", "decode.utility=token_f1", "decode.attributes is null")
UTILITIES = ("token_f1", "rouge_l", "chrf", "exact")  # metrics that compare two captions without knowing any others


@dataclass
class EvaluateTextConfig(GenerationConfig):
    """How generated text is judged; the fields it inherits say how it is generated.

    Attributes:
        split: `val` to choose settings, `test` to report.
        batch_size: inputs at a time; where captions are searched for and not drawn, up to four times as many, if their
            cache takes no more than half a gigabyte and their logits no more than an eighth of one.
        seed: of the strategies that draw.
    """

    group: ClassVar[str] = "evaluate"

    split: str = MISSING
    batch_size: int = MISSING
    seed: int = MISSING

    @property
    def generation(self) -> dict[str, Any]:
        """The options of `LockingDecoderModel.generate`."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(GenerationConfig)}

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        if self.split not in ("val", "test"):
            raise ConfigError(f"evaluate.split={self.split} is not one of: val, test")
        require_at_least("evaluate", self, batch_size=1)
        super().check()


@dataclass
class EvaluateConfig(EvaluateTextConfig):
    """How a captioner is judged.

    Beside the strategies that generate a single sequence there is `mbr`, which draws several captions as `nucleus` does
    and keeps the one of the highest expected utility; see `lockdec.evaluation.candidates`.

    Attributes:
        candidates: mbr: how many captions are drawn for each input.
        utility: mbr: the metric by which they are compared with each other.
        attributes: those that captions express: for each, its values with the words of each. None for
            those that the data declare, such as the tonic of `data=pieces`.
    """

    candidates: int = 12
    utility: str = "token_f1"
    attributes: Any = None

    @property
    def generation(self) -> dict[str, Any]:
        """The options of `LockingDecoderModel.generate`; of mbr, those by which it draws."""
        return super().generation | ({"strategy": "nucleus"} if self.strategy == MBR else {})

    def check(self) -> None:
        """Raise ConfigError where a value is out of range."""
        require_at_least("evaluate", self, candidates=1)
        require(self.candidates <= MOST_SEQUENCES, "evaluate.candidates", self.candidates, f"at most {MOST_SEQUENCES}")
        require_choice("evaluate.strategy", self.strategy, (*STRATEGIES, MBR))
        require_choice("evaluate.utility", self.utility, UTILITIES)
        require_attributes("evaluate.attributes", self.attributes)
        drawing = dataclasses.replace(self, strategy="nucleus") if self.strategy == MBR else self
        super(EvaluateConfig, drawing).check()


def with_options(decode: EvaluateConfig, **options: Any) -> EvaluateConfig:
    """The same decoding with other options, where they are given (not None).

    Raises:
        ConfigError: an option is impossible.
    """
    given, kinds = {name: value for name, value in options.items() if value is not None}, get_type_hints(EvaluateConfig)
    for name, value in given.items():
        require_kind(f"evaluate.{name}", value, kinds.get(name, object))
    changed = dataclasses.replace(decode, **given)
    changed.check()
    return changed


def require_kind(name: str, value: object, kind: type) -> None:
    """Raise ConfigError, naming the option, unless its value is of this kind; numbers may be those of numpy."""
    wanted: dict[type, tuple[type, str]] = {
        int: (Integral, "a whole number"),
        float: (Real, "a number"),
        str: (str, "a text"),
    }
    if kind in wanted and not isinstance(value, wanted[kind][0]):
        raise ConfigError(f"{name}={value!r}: use {wanted[kind][1]}")
