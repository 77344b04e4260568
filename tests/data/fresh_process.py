"""Runs Python in a process of its own, with a hash seed of its own: what is deterministic stays the same."""

from __future__ import annotations

import os
import subprocess
import sys


def output(code: str, hash_seed: int) -> str:
    """What `code` prints."""
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "TOKENIZERS_PARALLELISM": "true"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
