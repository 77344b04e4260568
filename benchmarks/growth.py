"""How cost grows: python -m benchmarks.growth [--threads 2]

It varies the length of sequences (a pretraining step of 16), the number of encoder states and captions (a finetuning
step), the length of captions (64, greedy), and the number of cells in a sweep. Lengths take turns; the medians go into
docs/performance/growth.json and docs/performance/growth.png. Sizes are those of decoder=small; the sweeps have short
cells (100 steps, 64 shots, a new seed each) of the default pipeline, whose shared stages are made beforehand in
$LOCKDEC_OUTPUTS or outputs/ if they are missing.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch.nn import functional as F

from lockdec.runtime.acceleration import keep_memory, multiply_exactly
from lockdec.transformer.models import CrossAttentionConfig, DecoderConfig, Encoded, LockingDecoderModel

ROOT = Path(__file__).parent.parent
SWEEP = "sweep, by cells"
CELLS = (1, 2, 4, 8)
CELL = ("fewshot.shots=64", "finetune.steps=100", "logger=none", "trainer.threads=1")
VOCAB, ENCODER_DIM, SHORT, LONGEST = 2048, 149, 12, 512
Step = Callable[[], object]


def training(model: LockingDecoderModel, tokens: torch.Tensor, encoded: Encoded | None) -> Step:
    """Loss, gradients and an update of the trainable parameters."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-4, fused=True)

    def step() -> None:
        loss = F.cross_entropy(model(tokens[:, :-1], encoded).flatten(0, 1), tokens[:, 1:].flatten())
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    return step


def pretraining(length: int) -> Step:
    """A step over 16 sequences of this length."""
    return training(decoder(), torch.randint(VOCAB, (16, length + 1)), None)


def finetuning(rows: int, states: int) -> Step:
    """A step over captions of 12 tokens, each with this many states."""
    model = captioner()
    model.freeze_decoder()
    return training(model, torch.randint(VOCAB, (rows, SHORT + 1)), encoded(rows, states))


def writing(length: int) -> Step:
    """64 captions of this many tokens."""
    model, seen = captioner().eval(), encoded(64, 64)
    sizes: dict[str, Any] = {"max_new_tokens": length, "min_new_tokens": length}
    return lambda: model.generate(seen, bos_id=1, eos_id=2, pad_id=0, generator=None, **sizes)


def decoder() -> LockingDecoderModel:
    """The default decoder, with room for long sequences."""
    return LockingDecoderModel(DecoderConfig(vocab_size=VOCAB, max_len=LONGEST))


def captioner() -> LockingDecoderModel:
    """The default decoder, unlocked."""
    model = decoder()
    model.attach(CrossAttentionConfig(heads=8, d_q=8, d_k=8, d_v=32), ENCODER_DIM)
    model.unlock()
    return model


def encoded(rows: int, states: int) -> Encoded:
    """Random states."""
    return Encoded(torch.randn(rows, states, ENCODER_DIM), torch.ones(rows, states, dtype=torch.bool))


CURVES: Mapping[str, Mapping[int, Callable[[], Step]]] = {
    "pretraining step, by tokens of a sequence": {n: partial(pretraining, n) for n in (32, 64, 128, 256, 512)},
    "finetuning step, by encoder states": {n: partial(finetuning, 32, n) for n in (1, 4, 16, 64, 256)},
    "finetuning step, by captions": {n: partial(finetuning, n, 64) for n in (4, 8, 16, 32, 64)},
    "64 captions, by tokens": {n: partial(writing, n) for n in (4, 8, 16, 32, 64)},
}


def milliseconds(steps: Mapping[int, Step], rounds: int) -> dict[int, float]:
    """The median time of each step; the steps take turns."""
    times: dict[int, list[float]] = {size: [] for size in steps}
    for number in range(rounds + 1):
        for size, step in steps.items():
            started = time.perf_counter()
            step()
            if number:  # the first warms up
                times[size].append(1e3 * (time.perf_counter() - started))
    return {size: median(taken) for size, taken in times.items()}


def sweeps() -> tuple[dict[int, float], float]:
    """Seconds of each sweep by its number of cells, and of a cell's own stages, finetune and evaluate."""
    seeds = iter(random.SystemRandom().sample(range(10**6, 10**9), 1 + sum(CELLS)))  # new ones: nothing is reused
    taken, own = {}, []

    def run(*arguments: str) -> float:
        command = [sys.executable, "-m", "lockdec.run", *arguments, *CELL]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    run(f"seed={next(seeds)}", "name=growth")
    for cells in CELLS:
        with tempfile.TemporaryDirectory() as folder:
            several = ",".join(str(next(seeds)) for _ in range(cells))
            taken[cells] = run("-m", f"seed={several}", f"hydra.sweep.dir={folder}")
            for path in Path(folder).glob("*/result.json"):
                stages = json.loads(path.read_text(encoding="utf-8"))["stages"]
                own.append(stages["finetune"]["seconds"] + stages["evaluate"]["seconds"])
    return taken, fmean(own)


def draw(curves: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """One panel per curve, with a line proportional to the largest size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3), layout="constrained")
    for place, (name, curve) in enumerate(curves.items()):
        sizes, taken = list(curve), list(curve.values())
        axes: Any = figure.add_subplot(1, len(curves), place + 1)
        axes.plot(sizes, [taken[-1] * size / sizes[-1] for size in sizes], "--", color="0.7")
        axes.plot(sizes, taken, "o-")
        axes.set_xlabel(name.replace(", by ", "\nby "))
        axes.set_ylim(bottom=0)
        axes.set_ylabel("seconds" if name == SWEEP else "" if place else "milliseconds")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, save, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    keep_memory()
    multiply_exactly()
    curves = {}
    for name, builders in CURVES.items():
        curves[name] = milliseconds({size: build() for size, build in builders.items()}, given.rounds)
        print(f"{name}: {', '.join(f'{size}: {taken:.1f} ms' for size, taken in curves[name].items())}", flush=True)
    by_cells, own = sweeps()
    print(f"{SWEEP}: {', '.join(f'{cells}: {taken:.1f} s' for cells, taken in by_cells.items())}; a cell: {own:.1f} s")
    slope = (by_cells[CELLS[-1]] - by_cells[CELLS[0]]) / (CELLS[-1] - CELLS[0])
    print(f"a further cell takes {slope:.1f} s")
    path = ROOT / "docs" / "performance" / "growth.json"
    draw({**curves, SWEEP: by_cells}, path.with_suffix(".png"))
    cells = {"seconds": by_cells, "seconds_of_a_further_cell": slope, "seconds_of_finetune_and_evaluate": own}
    found = {"threads": given.threads, "torch": torch.__version__, "milliseconds": curves, "cells": cells}
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
