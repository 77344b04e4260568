"""How captions are generated and judged, as plain data; imports no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from omegaconf import MISSING

from lockdec.config.schema import require_at_least
from lockdec.errors import ConfigError
from lockdec.transformer.configuration import GenerationConfig


@dataclass
class EvaluateConfig(GenerationConfig):
    """How a captioner or a translator is judged; the fields it inherits say how text is generated.

    Attributes:
        split: `val` to choose settings, `test` to report.
        batch_size: inputs at a time.
        seed: of the strategies that draw (nucleus, top_k).
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
