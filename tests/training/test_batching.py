from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lockdec.data.fewshot import Pair, support_set
from lockdec.data.openmoji import OpenMoji
from lockdec.data.text import WikipediaLeads, pretraining_text
from lockdec.data.tokenizer import EOS_ID, PAD_ID, Tokenizer, train_tokenizer
from lockdec.encoders.encoded import EncodedSet
from lockdec.encoders.normalisation import Normalisation
from lockdec.training.batching import (
    CaptionBatch,
    LineDataModule,
    PinningDataModule,
    StepLoader,
    SupportDataModule,
    TextBatch,
    TextDataModule,
    epoch_batches,
)
from lockdec.transformer.encoded import Encoded

lengths = st.lists(st.integers(1, 30), min_size=1, max_size=200)
maybe = st.none() | st.integers(30, 300)


@given(lengths, st.integers(), st.integers(0, 9), st.none() | st.integers(1, 50), maybe, st.booleans())
def test_an_epoch_has_every_sequence_once_within_both_limits(
    lengths: list[int], seed: int, epoch: int, rows: int | None, tokens: int | None, by_length: bool
) -> None:
    batches = epoch_batches(lengths, seed, epoch, rows, tokens, by_length)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert batch
        assert rows is None or len(batch) <= rows
        assert tokens is None or len(batch) * max(lengths[index] for index in batch) <= tokens
    assert batches == epoch_batches(lengths, seed, epoch, rows, tokens, by_length)


@given(lengths, st.integers(), st.none() | st.integers(1, 50), maybe)
def test_sorted_by_length_every_epoch_has_as_many_batches(
    lengths: list[int], seed: int, rows: int | None, tokens: int | None
) -> None:
    counts = {len(epoch_batches(lengths, seed, epoch, rows, tokens)) for epoch in range(4)}
    assert len(counts) == 1


def test_one_long_sequence_leaves_other_batches_full() -> None:
    batches = epoch_batches([30] + [1] * 120, 0, 0, max_tokens=60, by_length=False)
    assert len(batches) <= 5


def test_epochs_and_seeds_differ() -> None:
    orders = [epoch_batches([3] * 64, seed, epoch, 8) for seed in range(3) for epoch in range(3)]
    assert all(orders.index(order) == position for position, order in enumerate(orders))


@given(st.integers(1, 40), st.integers(0, 40))
def test_a_loader_continues_from_its_state(steps: int, stop: int) -> None:
    def loader() -> StepLoader[list[int]]:
        return StepLoader(lambda epoch: epoch_batches([1] * 10, 0, epoch, 3), list, steps)

    stop = min(stop, steps)
    whole = list(loader())
    assert len(whole) == len(loader()) == steps
    first, second = loader(), loader()
    stream = iter(first)
    seen = [next(stream) for _ in range(stop)]
    second.load_state_dict(first.state_dict())
    if stop < steps:
        assert seen + list(second) == whole


def test_a_loader_begins_again_after_its_last_step() -> None:
    loader = StepLoader(lambda epoch: epoch_batches([1] * 10, 0, epoch, 3), list, 6)
    assert list(loader) == list(loader)


@pytest.fixture(scope="module")
def text() -> list[str]:
    return pretraining_text(OpenMoji(), [WikipediaLeads()])


@pytest.fixture(scope="module")
def tokenizer(text: list[str]) -> Tokenizer:
    return train_tokenizer(text[::20], 1024)


def text_module(tokenizer: Tokenizer, text: list[str], steps: int = 10) -> TextDataModule:
    val = ["a red hat", "woman firefighter", "flag of germany"]
    return TextDataModule(tokenizer, text, val, batch_tokens=1024, max_len=48, steps=steps, seed=0)


def test_an_epoch_of_text_is_all_of_it_with_little_padding(tokenizer: Tokenizer, text: list[str]) -> None:
    data = text_module(tokenizer, text)
    steps = len(data.epoch(0))
    data = text_module(tokenizer, text, steps)
    rows: list[tuple[int, ...]] = []
    real = total = 0
    for batch in data.train_dataloader():
        assert batch.tokens.numel() <= 1024
        real, total = real + int((batch.tokens != PAD_ID).sum()), total + batch.tokens.numel()
        rows += [tuple(token for token in row if token != PAD_ID) for row in batch.tokens.tolist()]
    assert sorted(rows) == sorted(tuple(row) for row in tokenizer.sequences(text, 48))
    assert real / total > 0.98


def test_validation_is_all_of_it_in_the_same_batches(tokenizer: Tokenizer, text: list[str]) -> None:
    data = text_module(tokenizer, text)
    first, second = list(data.val_dataloader()), list(data.val_dataloader())
    assert all(torch.equal(one.tokens, other.tokens) for one, other in zip(first, second, strict=True))
    captions = [caption for batch in first for caption in tokenizer.decode_batch(batch.tokens)]
    assert sorted(captions) == ["a red hat", "flag of germany", "woman firefighter"]


@pytest.mark.parametrize("steps", [1, 3, 12, 13, 40])
def test_the_lines_that_steps_read_are_known_in_advance(steps: int) -> None:
    """Of 100 lines in batches of 8: some of them, or all after an epoch of 13 steps."""
    lines = [[1, number + 3, 2] for number in range(100)]
    data = LineDataModule(lines, lines[:4], pad_id=0, batch_size=8, steps=steps, seed=0)
    read = {int(tokens[1]) - 3 for batch in data.train_dataloader() for tokens in batch.tokens}
    assert data.shown == {row: place for place, row in enumerate(sorted(read))}
    assert (len(read) == 100) == (steps >= 13)


class Recorder(L.LightningModule):
    """Learns nothing; keeps the batches it was shown and measured on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[list[int]]] = []
        self.measured: list[list[list[int]]] = []

    def training_step(self, batch: TextBatch, batch_idx: int) -> Tensor:
        self.seen.append(batch.tokens.tolist())
        return self.weight.sum()

    def validation_step(self, batch: TextBatch, batch_idx: int) -> None:
        self.measured.append(batch.tokens.tolist())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(L.Callback):
    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def test_a_resumed_trainer_sees_the_batches_that_were_left(
    tmp_path: Path, tokenizer: Tokenizer, text: list[str]
) -> None:
    def fit(module: Recorder, checkpoint: Path | None = None, *callbacks: L.Callback) -> Recorder:
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=1,
            max_steps=10,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=list(callbacks),
            default_root_dir=tmp_path,
        )
        trainer.fit(module, datamodule=text_module(tokenizer, text), ckpt_path=checkpoint)
        return module

    whole = fit(Recorder(), None, SaveAt(4, tmp_path / "last.ckpt"))
    resumed = fit(Recorder(), tmp_path / "last.ckpt")
    assert len(whole.seen) == 10
    assert resumed.seen == whole.seen[4:]
    assert whole.measured == resumed.measured != []


@pytest.fixture(scope="module")
def encoded() -> EncodedSet:
    states = torch.randn(3953, 4, 6, generator=torch.Generator().manual_seed(0)).numpy()
    return EncodedSet(states, torch.full((3953,), 4).numpy(), OpenMoji().ids, Normalisation())


def test_support_batches_are_the_pairs_with_their_states(tokenizer: Tokenizer, encoded: EncodedSet) -> None:
    pairs = support_set(OpenMoji(), 50, 0)
    data = SupportDataModule(tokenizer, pairs, encoded, batch_size=16, max_len=48, steps=4, seed=0)
    shown: list[Pair] = []
    for batch in data.train_dataloader():
        assert 2 <= len(batch.tokens) <= 16
        assert (batch.tokens[:, -1] != PAD_ID).any()  # trimmed to the longest
        captions = tokenizer.decode_batch(batch.tokens)
        rows = batch.rows.tolist()
        assert torch.equal(batch.encoded.states, encoded.batch(rows).states)
        assert (batch.tokens == EOS_ID).sum() == len(captions)
        shown += [Pair(row, caption) for row, caption in zip(rows, captions, strict=True)]
    assert sorted(shown, key=lambda pair: pair.index) == sorted(pairs, key=lambda pair: pair.index)


def test_fewer_pairs_than_a_batch_are_one_batch(tokenizer: Tokenizer, encoded: EncodedSet) -> None:
    pairs = support_set(OpenMoji(), 4, 0)
    data = SupportDataModule(tokenizer, pairs, encoded, batch_size=64, max_len=48, steps=3, seed=0)
    assert [len(batch.tokens) for batch in data.train_dataloader()] == [4, 4, 4]


@pytest.mark.parametrize(("device", "pinned"), [("cuda", True), ("cpu", False)])
def test_batches_reach_a_gpu_through_pinned_memory(device: str, pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # There may be no GPU here: copying to it is left out, and what is pinned is noted instead.
    seen: list[Tensor] = []

    def pin_memory(tensor: Tensor) -> Tensor:
        seen.append(tensor)
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(L.LightningDataModule, "transfer_batch_to_device", lambda self, batch, device, index: batch)
    states, mask = torch.zeros(2, 4, 3), torch.ones(2, 4, dtype=torch.bool)
    batch = CaptionBatch(torch.ones(2, 5, dtype=torch.long), Encoded(states, mask), torch.arange(2))
    moved = PinningDataModule().transfer_batch_to_device(batch, torch.device(device), 0)
    assert isinstance(moved, CaptionBatch)
    assert [tensor.shape for tensor in seen] == ([(2, 5), (2, 4, 3), (2, 4), (2,)] if pinned else [])
