"""The two experiments of translation at their smallest."""

from __future__ import annotations

from pathlib import Path

from lockdec.pipeline.running import run
from tests.conftest import TinyRun, composed

TRANSLATION = (
    "experiment=translation",
    "data.limit=160",
    "tokenizer.vocab_size=384",
    "decoder={d_model: 32, layers: 1, heads: 2, d_ff: 64}",
    "translate={steps: 20, val_every: 10, optimizer: {warmup_steps: 5}}",
    "evaluate.max_new_tokens=12",
    "logger=none",
)


LOCKED = (
    "experiment=locked_translation",
    "data.limit=160",
    "tokenizer.vocab_size=384",
    "decoder={max_len: 48, d_model: 32, layers: 2, heads: 2, d_ff: 64}",
    "text.name_repeats=1",
    "pretrain={steps: 10, batch_tokens: 512}",
    "pretrain_encoder={steps: 10, vocab_size: 384, model: {d_model: 32, layers: 2, heads: 2, d_ff: 64}}",
    "encoder.layers=[0,2]",
    "cross_attention={heads: 2, d_k: 2, d_v: 2}",
    "fewshot.shots=16",
    "finetune={steps: 10, batch_size: 8}",
    "evaluate.max_new_tokens=12",
    "logger=none",
)


def run_as(outputs: Path, name: str, *overrides: str) -> TinyRun:
    arguments = (*overrides, f"paths.outputs={outputs}")
    folder = outputs / "runs" / name
    return TinyRun(outputs, folder, run(composed(*arguments), folder, arguments))
