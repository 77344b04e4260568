"""A prepared process: waiting threads sleep early, and the faster library computes products."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lockdec.runtime.acceleration import exact_products
from lockdec.runtime.process import waits

PRECISION = "import torch; print(torch.get_float32_matmul_precision())"


@pytest.mark.parametrize("chosen", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "PASSIVE"}])
def test_how_long_threads_spin_is_left_to_the_user_who_has_said_it(chosen: dict[str, str]) -> None:
    assert waits({"HOME": "/"} | chosen) == {}


def test_threads_that_wait_soon_sleep() -> None:
    """As libgomp says it when torch loads it."""
    others = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment = others | {"OMP_DISPLAY_ENV": "VERBOSE"}
    command = [sys.executable, "-c", "from lockdec.runtime.process import ready; ready(loggers=()); " + PRECISION]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "GOMP_SPINCOUNT = '10000'" in answer.stderr
    assert answer.stdout.strip() == exact_products()  # the process multiplies by the faster library, too
