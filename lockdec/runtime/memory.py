"""Refuses sizes that no memory here holds, and reports when host or device memory runs out: what to lower."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from lockdec.errors import ConfigError, LockdecError

WEIGHT_BYTES = 4  # of a number in 32 bits, as all weights are drawn
BATCH_KEYS = ("batch_size", "batch_tokens")
_TEXTS = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory")


def require_memory(sizes: str, parameters: int) -> None:
    """Raise ConfigError unless this machine could hold so many parameters, even if it held nothing else.

    Args:
        sizes: what has them, and which of its sizes decide how many, as a user types them.
        parameters: at least how many there are. They are drawn in this machine's memory, whatever device trains them.
    """
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if parameters * WEIGHT_BYTES > total:
        raise ConfigError(f"{sizes}: {parameters:.2g} parameters or more, and this machine's memory ({total >> 30} GiB)"
                          f" holds {total // WEIGHT_BYTES:.2g} at most; use smaller sizes")  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error, or one of its causes, says that memory ran out."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(seen, OSError) and seen.errno == errno.ENOMEM:
            return True
        if isinstance(seen, RuntimeError) and any(text in str(seen).lower() for text in _TEXTS):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def out_of_memory(stage: str, config: DictConfig, error: BaseException) -> LockdecError:
    """The error for a stage that needed more memory than there is.

    Args:
        stage: its name.
        config: the whole config, which has the keys of the stage that can be lowered.
        error: its note describes the batch (`lockdec.training.fit` adds it).
    """
    notes = "; ".join(getattr(error, "__notes__", []))
    keys = ", ".join(f"{key}={value}" for key, value in batch_keys(config, stage)) or "the sizes of the model"
    return LockdecError(f"{stage}: out of memory{f' on {notes}' if notes else ''}; lower {keys}")


def batch_keys(config: DictConfig, stage: str) -> Iterator[tuple[str, int]]:
    """The keys that set the batch size of a stage, as a user types them, with their values."""
    subtree = config.stages[stage]
    for name in subtree:
        if name in BATCH_KEYS:
            yield f"stages.{stage}.{name}", subtree[name]
            continue
        raw = OmegaConf.to_container(subtree, resolve=False)
        source = raw[name] if isinstance(raw, dict) else None
        value = subtree[name]
        if isinstance(source, str) and source.startswith("${") and isinstance(value, DictConfig):
            yield from ((f"{source[2:-1]}.{key}", value[key]) for key in BATCH_KEYS if key in value)


def describe_shapes(batch: object) -> str:
    """The shapes of the tensors in a batch, by name: "tokens 10 x 48"."""
    return ", ".join(f"{name} {' x '.join(map(str, tensor.shape))}" for name, tensor in _tensors(batch, "batch"))


def _tensors(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    fields: Mapping[str, Any] = {}
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, tuple) and hasattr(value, "_asdict"):
        fields = value._asdict()
    elif hasattr(value, "__dataclass_fields__"):
        fields = {field: getattr(value, field) for field in value.__dataclass_fields__}
    for field, inner in fields.items():
        yield from _tensors(inner, field)
