"""What does the loss over a large vocabulary need, computed in chunks and at once?

    python -m benchmarks.vocabulary                     152,000 tokens, 32 captions of 200 tokens, 896 wide
    python -m benchmarks.vocabulary --rows 8            fewer captions, for a machine of little memory

A frozen decoder of one layer learns its cross-attention for one step, and its loss is evaluated once. Each way is a
process of its own; printed are its peak of memory beyond the model, and its CPU-seconds.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import torch

from lockdec.modules.losses import next_token_loss
from lockdec.transformer.fast import chunks as chunking
from lockdec.transformer.models import CrossAttentionConfig, DecoderConfig, Encoded, LockingDecoderModel

WAYS = ("at_once", "in_chunks")


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(vocab: int, rows: int, length: int, width: int) -> str:
    """Train and evaluate once, and tell memory and time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = DecoderConfig(vocab_size=vocab, max_len=length + 1, d_model=width, layers=1, heads=4, d_ff=width, dropout=0)
    model = LockingDecoderModel(sizes).eval()
    model.attach(CrossAttentionConfig(heads=2, d_q=8, d_k=8, d_v=8), 64)
    model.unlock()
    model.freeze_decoder()
    tokens = torch.randint(3, vocab, (rows, length + 1))
    encoded = Encoded(torch.randn(rows, 4, 64), torch.ones(rows, 4, dtype=torch.bool))
    next_token_loss(model, tokens[:1, :3], 2, Encoded(encoded.states[:1], encoded.mask[:1]))  # starts the libraries
    before, found = peak(), []
    for learns in (True, False):
        started = time.process_time()
        with torch.set_grad_enabled(learns):
            loss, _ = next_token_loss(model, tokens, 2, encoded)
            if learns:
                torch.autograd.backward(loss)
        found.append(f"{'training' if learns else 'evaluation'} {time.process_time() - started:.1f} CPU-s")
    return f"{(peak() - before) / 1e9:.2f} GB beyond the model, {', '.join(found)}, loss {float(loss):.5f}"


def main() -> None:
    """Measure both ways and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("vocab", 152_000), ("rows", 32), ("length", 200), ("width", 896)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way is None:
        for way in WAYS:
            subprocess.run([sys.executable, "-m", "benchmarks.vocabulary", *sys.argv[1:], "--way", way], check=True)
        return
    if given.way == "at_once":
        vars(sys.modules[chunking.__module__])["MOST"] = sys.maxsize
    print(f"{given.way}: {measure(given.vocab, given.rows, given.length, given.width)}", flush=True)


if __name__ == "__main__":
    main()
