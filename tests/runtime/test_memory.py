"""Running out of memory: recognised whoever says it, and reported with the batch and the keys to lower."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from lockdec.errors import ConfigError
from lockdec.runtime.memory import batch_keys, describe_shapes, is_out_of_memory, out_of_memory, require_memory
from tests.conftest import composed

FULL = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    OSError(errno.ENOMEM, "cannot allocate"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
]


@pytest.mark.parametrize("error", FULL, ids=repr)
def test_it_is_recognised_also_as_the_cause_of_another_error(error: Exception) -> None:
    assert is_out_of_memory(error)
    other = ValueError("a step failed")
    other.__cause__ = error
    assert is_out_of_memory(other)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space left"), RuntimeError("shapes differ"), ValueError()])
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_the_error_names_the_batch_and_the_keys_that_a_user_types() -> None:
    config = composed("debug=tiny", "stages.attach.batch_size=3")
    error = MemoryError()
    error.add_note("a batch of tokens 10 x 48 at step 7")
    assert str(out_of_memory("attach", config, error)) == (
        "attach: out of memory on a batch of tokens 10 x 48 at step 7; lower stages.attach.batch_size=3"
    )
    assert dict(batch_keys(config, "pretrain")) == {"pretrain.batch_tokens": config.pretrain.batch_tokens}


class Encoded(NamedTuple):
    states: Tensor
    mask: Tensor


@dataclass
class Batch:
    tokens: Tensor
    encoded: Encoded


def test_shapes_are_found_in_tuples_and_dataclasses() -> None:
    batch = Batch(torch.zeros(10, 48), Encoded(torch.zeros(10, 4, 2), torch.ones(10, 4)))
    assert describe_shapes(batch) == "tokens 10 x 48, states 10 x 4 x 2, mask 10 x 4"
    assert describe_shapes(torch.zeros(3)) == "batch 3"


def test_what_no_memory_of_this_machine_holds_is_refused() -> None:
    require_memory("decoder (d_model=8)", 1000)
    with pytest.raises(
        ConfigError, match=r"^decoder \(d_model=8\): 1e\+18 parameters or more, and this machine's memory"
    ):
        require_memory("decoder (d_model=8)", 10**18)
