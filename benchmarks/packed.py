"""Would many cells of a sweep train faster in one process, batched into one model?

python -m benchmarks packed packed_dimensions packed_small      cells alone, packed, and alone in two processes
python -m benchmarks.packed                                     how far training packed ends from training alone

The cells share the frozen decoder, so their batches go through it as one. Their cross-attention is stacked: a product
with the weights of all cells is one batched product, and heads of different sizes are filled up with zeros, which
stay zero, since each filler meets only another on its way to the loss and so gets no gradient.
"""

from __future__ import annotations

import copy
import math
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from benchmarks import defaults
from benchmarks.side_by_side import Subject
from lockdec.data.tokenizer import real_targets
from lockdec.modules.captioning import Captioning, perturbed
from lockdec.modules.configuration import OptimizerConfig
from lockdec.optimizers import optimization
from lockdec.training.batching import CaptionBatch, SupportDataModule
from lockdec.transformer.attention import MultiHeadAttention, Packing, merge_heads, scaled_dot_product_attention
from lockdec.transformer.decoding.caching import Memory
from lockdec.transformer.encoded import Encoded
from lockdec.transformer.models import CrossAttentionConfig, DecoderConfig, LockingDecoderModel

CELLS = 8
UNIT = "steps of a cell"
GOALS: Mapping[str, float] = {}
TITLE = (
    f"A finetuning step at default sizes (d_model 192, 4 layers, 32 captions a batch) of {CELLS} cells with heads of 8 "
    "dimensions, which differ in their seeds: one after the other, packed into one model, and one after the other in "
    "two processes of a thread each"
)


@dataclass(frozen=True)
class Size:
    """What is trained.

    Attributes:
        batch_size: pairs a step.
        heads_of: the dimensions of heads, cell by cell and then from the first again.
    """

    decoder: DecoderConfig
    batch_size: int
    heads_of: tuple[int, ...] = (8,)


def default_size() -> Size:
    """The finetune stage's."""
    return Size(defaults.pretrain().decoder, defaults.finetune().fit.batch_size)


def cell_configs(size: Size, count: int) -> list[CrossAttentionConfig]:
    """The cross-attention of each cell."""
    return [
        CrossAttentionConfig(heads=8, d_q=d, d_k=d, d_v=d, unlock="zero_output", bias=False)
        for d in (size.heads_of[index % len(size.heads_of)] for index in range(count))
    ]


class Cell:
    """One cell as the finetune stage trains it, without Lightning."""

    def __init__(self, size: Size, config: CrossAttentionConfig, seed: int) -> None:
        torch.manual_seed(0)
        self.model = LockingDecoderModel(size.decoder)  # the same in all cells
        torch.manual_seed(seed)
        self.model.attach(config, defaults.encoded().dim)
        self.model.unlock()
        self.model.eval()
        self.fit, self.seed, self.done = defaults.finetune().fit, seed, 0
        eos = defaults.tokenizer().special.eos
        self.objective = Captioning(self.model, self.fit, eos, "finetune").objective
        self.weights = list(self.model.cross_attention_parameters().values())
        self.optimizer = Optimizer(self.weights)
        self.batches = self._batches(size)

    def _batches(self, size: Size) -> Iterator[CaptionBatch]:
        longest, steps = size.decoder.max_len, defaults.FOREVER
        module = SupportDataModule(
            defaults.tokenizer(),
            defaults.pairs(),
            defaults.encoded(),
            batch_size=size.batch_size,
            max_len=longest,
            steps=steps,
            seed=self.seed,
        )
        return iter(module.train_dataloader())

    def draw(self) -> None:
        """Seed what the next step draws, as `lockdec.training.fit.StepSeed` does."""
        torch.manual_seed(self.seed * 1_000_003 + self.done)
        self.done += 1

    def step(self) -> float:
        """Train for a step; returns the loss."""
        self.draw()
        loss = self.objective(next(self.batches))
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.weights, self.fit.optimizer.clip_norm)
        self.optimizer.step()
        return float(loss.detach())


class Optimizer:
    """AdamW with a schedule, as experiment=adamw has it, for weights of one cell or of stacked ones."""

    def __init__(self, weights: list[nn.Parameter]) -> None:
        found = optimization.configure(weights, OptimizerConfig(3e-3, 0.01, [0.9, 0.99], 100, "cosine", 1.0), 1200)
        self._optimizer, self._schedule = found["optimizer"], found["lr_scheduler"]["scheduler"]

    def step(self) -> None:
        """Move the weights, and forget their gradients."""
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()


def heads_first(weight: Float[Tensor, "out width"], heads: int, size: int) -> Float[Tensor, "width wide"]:
    """The weight of a projection, transposed, its heads filled up to so many dimensions."""
    parts = weight.detach().view(heads, -1, weight.shape[1])
    return F.pad(parts, (0, 0, 0, size - parts.shape[1])).flatten(0, 1).T.contiguous()


class StackedCrossAttention(nn.Module):
    """The cross-attention of one layer in all cells; stands where `LockingMultiHeadAttention` stands in a layer."""

    locked = False
    scale: Tensor  # of queries: attention divides by the root of the filled-up size

    def __init__(self, alone: Sequence[MultiHeadAttention]) -> None:
        super().__init__()
        self.cells, self.heads = len(alone), alone[0].heads
        own = [one.key.out_features // self.heads for one in alone]
        d_k, d_v = max(own), max(one.value.out_features // self.heads for one in alone)
        self.query, self.key = (
            nn.Parameter(torch.stack([heads_first(getattr(one, name).weight, self.heads, d_k) for one in alone]))
            for name in ("query", "key")
        )
        self.value = nn.Parameter(torch.stack([heads_first(one.value.weight, self.heads, d_v) for one in alone]))
        self.output = nn.Parameter(
            torch.stack([heads_first(one.output.weight.T, self.heads, d_v).T.contiguous() for one in alone])
        )
        self.register_buffer("scale", torch.tensor([math.sqrt(d_k / size) for size in own]).view(-1, 1, 1))

    def _project(
        self, x: Float[Tensor, "rows t width"], weight: Float[Tensor, "cells width wide"]
    ) -> Float[Tensor, "rows t wide"]:
        return torch.bmm(x.reshape(self.cells, -1, x.shape[-1]), weight).view(*x.shape[:2], -1)

    def _split(self, x: Float[Tensor, "rows t wide"]) -> Float[Tensor, "rows heads t d"]:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def remember(self, states: Float[Tensor, "rows s d"], mask: Bool[Tensor, "rows s"]) -> Memory:
        """Keys and values of the states of all cells, whose rows follow each other."""
        return Memory(
            self._split(self._project(states, self.key)), self._split(self._project(states, self.value)), mask
        )

    def forward(self, query: Float[Tensor, "1 n d"], memory: Memory, packing: Packing) -> Float[Tensor, "1 n d"]:
        """What each cell's captions see."""
        assert memory.mask is not None
        queries = self._split(self._project(packing.unpack(query), self.query * self.scale))
        mixed = scaled_dot_product_attention(queries, memory.key, memory.value, memory.mask.unsqueeze(1))
        return packing.pack(self._project(merge_heads(mixed), self.output))


def stacked(cells: Sequence[Cell]) -> list[StackedCrossAttention]:
    """The cross-attention of the cells as they stand, layer by layer."""
    layers: list[list[Any]] = [list(cell.model.decoder.layers) for cell in cells]
    return [
        StackedCrossAttention([one.cross_attention.attention for one in same]) for same in zip(*layers, strict=True)
    ]


class Packed:
    """Cells that train together in one model; each ends where it would alone."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells, self.fit = cells, cells[0].fit
        self.model = copy.deepcopy(cells[0].model)
        for layer, attention in zip(self.model.decoder.layers, stacked(cells), strict=True):
            layer._modules["cross_attention"] = attention
        self.model.freeze_decoder()
        self.weights = list(self.model.cross_attention_parameters().values())
        self.optimizer = Optimizer(self.weights)

    def step(self) -> Float[Tensor, " cells"]:
        """Train every cell for a step; returns their losses."""
        batches, states = [], []
        for cell in self.cells:
            cell.draw()
            batches.append(next(cell.batches))
            states.append(perturbed(batches[-1].encoded, self.fit.state_noise, self.fit.state_dropout))
        width = max(batch.tokens.shape[1] for batch in batches)
        pad = defaults.tokenizer().special.pad
        tokens = torch.cat([F.pad(batch.tokens, (0, width - batch.tokens.shape[1]), value=pad) for batch in batches])
        most = max(one.states.shape[1] for one in states)
        encoded = Encoded(
            torch.cat([F.pad(one.states, (0, 0, 0, most - one.states.shape[1])) for one in states]),
            torch.cat([F.pad(one.mask, (0, most - one.mask.shape[1])) for one in states]),
        )
        losses = self.losses(tokens, encoded)
        torch.autograd.backward(losses.sum())
        self.clip()
        self.optimizer.step()
        return losses.detach()

    def losses(self, tokens: Int[Tensor, "rows t"], encoded: Encoded) -> Float[Tensor, " cells"]:
        """The mean loss of each cell's tokens."""
        real = real_targets(tokens, defaults.tokenizer().special.eos)
        packing = Packing(real)
        hidden = self.model.real_hidden(tokens[:, :-1], packing, encoded)
        logits = self.model.logits(hidden[: len(hidden) - packing.filling])
        every = F.cross_entropy(logits, tokens[:, 1:][real], reduction="none", label_smoothing=self.fit.label_smoothing)
        counts = real.view(len(self.cells), -1).sum(1).tolist()
        return torch.stack([part.mean() for part in torch.split(every, counts)])

    def clip(self) -> None:
        """Shorten each cell's gradient to the largest norm allowed."""
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        factors = (self.fit.optimizer.clip_norm / (norms + 1e-6)).clamp(max=1.0).view(-1, 1, 1)
        for gradient in gradients:
            gradient.mul_(factors)

    def divergence(self, alone: Sequence[Cell]) -> float:
        """The largest distance of a weight matrix from its cell's trained alone, as a share of the way that went."""
        worst = 0.0
        layers: list[Any] = list(self.model.decoder.layers)
        for layer, there, start in zip(layers, stacked(alone), stacked(self.cells), strict=True):
            for name in ("query", "key", "value", "output"):
                ours, theirs, before = (getattr(one, name).detach() for one in (layer.cross_attention, there, start))
                apart, way = ((to - theirs).flatten(1).norm(dim=1) for to in (ours, before))
                worst = max(worst, float((apart / way).max()))
        return worst


def cells(size: Size, count: int = CELLS) -> list[Cell]:
    """The cells of a sweep, each with its own weights and order of pairs."""
    return [Cell(size, config, seed) for seed, config in enumerate(cell_configs(size, count))]


def one_by_one(size: Size, count: int = CELLS) -> Subject:
    """What lockdec does."""
    every = cells(size, count)
    return Subject(lambda: [cell.step() for cell in every], work=count)


def together(size: Size) -> Subject:
    """All cells in one model."""
    packed = Packed(cells(size))
    return Subject(packed.step, work=CELLS)


def serve(size: Callable[[], Size], requests: Connection) -> None:
    """Train half of the cells for a step whenever asked."""
    torch.set_num_threads(1)
    half = one_by_one(size(), CELLS // 2)
    with suppress(EOFError):  # who asks has ended
        while requests.recv():
            requests.send(half.run() is not None)


def two_processes(size: Callable[[], Size]) -> Subject:
    """Half of the cells here and half in a process beside this one, a thread each."""
    torch.set_num_threads(1)
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    context.Process(target=serve, args=(size, there), daemon=True).start()
    half = one_by_one(size(), CELLS // 2)

    def run() -> object:
        here.send(True)
        half.run()
        return here.recv()

    return Subject(run, work=CELLS)


def subjects_of(size: Callable[[], Size]) -> Mapping[str, Callable[[], Subject]]:
    """The three ways at a size."""
    return {
        "lockdec": lambda: one_by_one(size()),
        "packed": lambda: together(size()),
        "two processes": partial(two_processes, size),
    }


def subjects() -> Mapping[str, Callable[[], Subject]]:
    """The three ways at default sizes."""
    return subjects_of(default_size)


def main(steps: int = 20) -> None:
    """Train cells of many sizes both ways and print how far apart they end."""
    small = replace(default_size(), batch_size=8, heads_of=(1, 2, 4, 8, 16, 32))
    alone, packed, apart = cells(small), Packed(cells(small)), 0.0
    for _ in range(steps):
        losses = torch.tensor([cell.step() for cell in alone])
        apart = max(apart, float((packed.step() - losses).abs().max()))
    print(f"{CELLS} cells with heads of 1 to 32 dimensions, {steps} steps: losses at most {apart:.1e} apart,")
    print(f"weights at most {packed.divergence(alone):.1e} of the way that they went")


if __name__ == "__main__":
    main()
