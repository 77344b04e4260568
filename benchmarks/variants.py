"""Is query/key normalisation, or a feed-forward network after cross-attention, worth having?

    python benchmarks/variants.py --outputs outputs/variants --seeds 0 1 2 3 4

Both are patched into the released cross-attention here, instead of being options of it, since an option has to be shown
worth having first. Each variant is finetuned and evaluated on the validation split with the default settings, on the
same support sets; the table gives the mean over seeds and the paired difference to the cross-attention as it is.

query_key_norm   queries and keys of every head divided by their root mean square, times a learned scale a head
                 (Henry et al. 2020; Dehghani et al. 2023, ViT-22B)
feed_forward     what cross-attention adds, a, becomes a + W_2 gelu(W_1 rms_norm(y + a)) with y the sublayer's input,
                 and W_2 starting at zero (a gated cross-attention block has one too: Alayrac et al. 2022, Flamingo)
wider_values     no patch: as many parameters as feed_forward has, spent on d_v
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any, NamedTuple, cast
from unittest import mock

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.nn import functional as F

from lockdec.config.schema import config_folder, register
from lockdec.pipeline.running import run
from lockdec.report.statistics import estimates
from lockdec.transformer import attention, layers
from lockdec.transformer.attention import LockingMultiHeadAttention, MultiHeadAttention, Packing
from lockdec.transformer.configuration import CrossAttentionConfig
from lockdec.transformer.decoding.caching import Memory

FEED_FORWARD = 128  # wide
WIDER = 50  # d_v that costs as many parameters as such a feed-forward network, instead of 32


class NormalisedAttention(MultiHeadAttention):
    """Attention between directions: the size of a query or key does not count, a learned scale a head does."""

    def initialise(self) -> None:
        super().initialise()
        self.scale = nn.Parameter(torch.ones(self.heads, 1, 1))

    def remember(self, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Memory:
        memory = super().remember(key, value, mask)
        return Memory(F.rms_norm(memory.key, memory.key.shape[-1:]), memory.value, mask)

    def queries(self, query: Tensor, packing: Packing | None = None) -> Tensor:
        queries = super().queries(query, packing)
        return F.rms_norm(queries, queries.shape[-1:]) * self.scale


class FeedForwardAttention(LockingMultiHeadAttention):
    """Cross-attention followed by a feed-forward network that starts by adding nothing."""

    def attach(self, config: CrossAttentionConfig, encoder_dim: int) -> None:
        super().attach(config, encoder_dim)
        self.widen = nn.Linear(self.d_model, FEED_FORWARD, bias=False)
        self.narrow = nn.Linear(FEED_FORWARD, self.d_model, bias=False)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, query: Tensor, memory: Memory | None, packing: Packing | None = None) -> Tensor:
        seen = super().forward(query, memory, packing)
        if self.locked or memory is None:
            return seen
        return seen + cast(Tensor, self.narrow(F.gelu(self.widen(F.rms_norm(query + seen, seen.shape[-1:])))))


class Variant(NamedTuple):
    """A class of `module` is replaced, or left as it is, and options may be set."""

    name: str
    module: ModuleType
    replaced: type
    by: type
    options: tuple[str, ...] = ()


VARIANTS = (
    Variant("as_it_is", attention, MultiHeadAttention, MultiHeadAttention),
    Variant("query_key_norm", attention, MultiHeadAttention, NormalisedAttention),
    Variant("feed_forward", layers, LockingMultiHeadAttention, FeedForwardAttention),
    Variant("wider_values", attention, MultiHeadAttention, MultiHeadAttention, (f"cross_attention.d_v={WIDER}",)),
)


def measure(variant: Variant, outputs: Path, shots: int, seed: int) -> dict[str, Any]:
    """The result of one cell; its pretrained decoder and encoded drawings are those of the first variant."""
    shared, own = outputs / "as_it_is" / "stages", outputs / variant.name / "stages"
    for stage in ("pretrain", "attach"):
        if shared != own and not (own / stage).exists():
            shutil.copytree(shared / stage, own / stage)
    overrides = [
        f"paths.outputs={outputs / variant.name}",
        f"fewshot.shots={shots}",
        f"seed={seed}",
        "evaluate.split=val",
    ]
    overrides += ["trainer.threads=1", "logger=none", *variant.options]
    folder = outputs / variant.name / "runs" / f"{shots}_{seed}"
    if (folder / "result.json").is_file():
        before: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        if before["status"] == "ok":
            return before
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return run(compose("config", overrides=overrides), folder, overrides)


def main() -> None:
    """Run every variant on every seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shots", type=int, default=256)
    arguments = parser.parse_args()
    register()
    found: dict[str, list[dict[str, Any]]] = {}
    for variant in VARIANTS:
        with mock.patch.object(variant.module, variant.replaced.__name__, variant.by):
            found[variant.name] = [
                measure(variant, arguments.outputs, arguments.shots, seed) for seed in arguments.seeds
            ]
    print(f"{arguments.shots} shots, validation split, seeds {arguments.seeds}")
    for metric in ("token_f1", "exact", "cider_d"):
        scores = {name: [float(cell["metrics"][metric]) for cell in cells] for name, cells in found.items()}
        for name, cells in found.items():
            own = f"{cells[0]['parameters']['trainable']:>8,} parameters  {fmean(scores[name]):.4f}"
            print(f"{metric:<9} {name:<15} {own}  {paired(scores[name], scores['as_it_is'])}")
        print(f"{metric:<9} feed_forward - wider_values  {paired(scores['feed_forward'], scores['wider_values'])}")


def paired(scores: Sequence[float], others: Sequence[float]) -> str:
    """The mean difference over seeds, and its interval."""
    gap = estimates([[score - other for score, other in zip(scores, others, strict=True)]])[0]
    assert gap is not None  # there are seeds
    return f"{gap.mean:+.4f}" + ("" if gap.low is None else f" [{gap.low:+.4f}, {gap.high:+.4f}]")


if __name__ == "__main__":
    main()
