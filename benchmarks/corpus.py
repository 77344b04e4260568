"""Pretraining on the real text, whose lines are short and vary in length: what padding costs."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from benchmarks import defaults
from benchmarks.decoders import gpt2, train_step
from benchmarks.side_by_side import Subject
from benchmarks.worker import device
from lockdec.data.tokenizer import pad
from lockdec.modules.losses import next_token_loss
from lockdec.transformer.models import LockingDecoderModel

BATCHES = 8  # a step of this suite: evenly spaced over an epoch

TITLE = (
    "Pretraining on the text of the default pipeline at default sizes (d_model 192, 4 layers, vocabulary 2,048, at "
    "most 512 tokens a batch), counting real tokens only. transformers takes the lines in random order, with as "
    "many in a batch as lockdec has on average, padded to the longest"
)
UNIT = "real tokens"
GOALS = {"transformers": 2.0}


def spaced(batches: Sequence[list[int]]) -> list[list[int]]:
    """A few of an epoch's batches."""
    return [batches[number * len(batches) // BATCHES] for number in range(BATCHES)]


def step(parameters: list[nn.Parameter], loss: Callable[[Tensor], Tensor], batches: list[list[int]]) -> Subject:
    """A training step over each of the batches."""
    sequences = defaults.tokenizer().sequences(defaults.text(), defaults.pretrain().decoder.max_len)
    current: list[list[int]] = []
    train = train_step(parameters, lambda: loss(pad(current).to(device())))

    def run() -> None:
        for lines in batches:
            current[:] = [sequences[line] for line in lines]
            train()

    return Subject(run, work=sum(len(sequences[line]) - 1 for lines in batches for line in lines))


def ours() -> Subject:
    """Batches of similar lengths, as the pretrain stage makes them."""
    model = LockingDecoderModel(defaults.pretrain().decoder).to(device()).train()
    batches = spaced(defaults.texts().epoch(0))
    return step(list(model.parameters()), lambda tokens: next_token_loss(model, tokens, eos_id=2)[0], batches)


def padded() -> Subject:
    """transformers with a collator that pads."""
    model = gpt2(defaults.pretrain().decoder).to(device()).train()
    lines = list(range(len(defaults.text())))
    random.Random(0).shuffle(lines)
    rows = round(len(lines) / len(defaults.texts().epoch(0)))

    def loss(tokens: Tensor) -> Tensor:
        real = tokens != 0
        found: Tensor = model(input_ids=tokens, attention_mask=real, labels=tokens.masked_fill(~real, -100)).loss
        return found

    batches = [lines[start : start + rows] for start in range(0, len(lines), rows)]
    return step(list(model.parameters()), loss, spaced(batches))


def subjects() -> Mapping[str, Callable[[], Subject]]:
    """lockdec and transformers."""
    return {"lockdec": ours, "transformers": padded}
