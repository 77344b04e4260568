"""Which texts or pairs each training step sees: a pure function of the seed and the number of the step.

Sequences of similar length share a batch, so little of it is padding. Each epoch holds every sequence once, and epochs
follow without end. So a loader can start at any step, which is all that resuming needs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import lightning as L
import torch
from jaxtyping import Float, Int
from torch import Tensor, tensor

from lockdec.data.fewshot import Pair
from lockdec.data.tokenizer import Tokenizer, pad
from lockdec.encoders.encoded import States
from lockdec.training.prefix import FrozenPrefix
from lockdec.transformer.encoded import Encoded

Batch = TypeVar("Batch")


class TextBatch(NamedTuple):
    """Lines of text.

    Attributes:
        tokens: BOS, text, EOS, padding.
        prefix: the hidden states of all tokens but the last, where the frozen layers were run in advance.
    """

    tokens: Int[Tensor, "b t"]
    prefix: Float[Tensor, "b u d_model"] | None = None


class CaptionBatch(NamedTuple):
    """Captions and the normalised states of their inputs.

    Attributes:
        tokens: BOS, caption, EOS, padding.
        encoded: the inputs' states.
        rows: which input of the data each row is.
        prefix: the hidden states of all tokens but the last, where the frozen layers were run in advance.
    """

    tokens: Int[Tensor, "b t"]
    encoded: Encoded
    rows: Int[Tensor, " b"]
    prefix: Float[Tensor, "b u d_model"] | None = None


class TranslationBatch(NamedTuple):
    """Texts and their translations, row by row: BOS, text, EOS, padding."""

    source: Int[Tensor, "b s"]
    target: Int[Tensor, "b t"]


def epoch_batches(
    lengths: Sequence[int],
    seed: int,
    epoch: int,
    max_rows: int | None = None,
    max_tokens: int | None = None,
    by_length: bool = True,
) -> list[list[int]]:
    """One epoch: every sequence once, in batches of sequences of similar length, in random order.

    Sorted by length, or limited by rows alone, every epoch has the same number of batches.

    Args:
        lengths: tokens of each sequence.
        seed, epoch: draw which sequences of equal length share a batch, and the order of the batches.
        max_rows: the most sequences in a batch; None for no limit.
        max_tokens: the most tokens in a batch, padding included; None for no limit.
        by_length: false mixes all lengths in a batch: more padding, but steps that are more alike.

    Returns:
        The indices into `lengths` of each batch.
    """
    rng = random.Random(f"{seed} {epoch}")
    order = rng.sample(range(len(lengths)), len(lengths))
    if by_length:
        order.sort(key=lengths.__getitem__)
    longest = 0
    batches: list[list[int]] = []
    for index in order:
        rows = len(batches[-1]) + 1 if batches else 1
        longest = max(longest, lengths[index])
        too_many = max_rows is not None and rows > max_rows
        too_long = max_tokens is not None and rows * longest > max_tokens
        if not batches or too_many or too_long:
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    rng.shuffle(batches)
    return batches


class StepLoader(Generic[Batch]):
    """Yields the batch of each step, from the current one to the last; `state_dict` holds the current one.

    Where several ranks train, each gets every batch whole and takes its share: see `lockdec.distributed.ranks`.

    Args:
        epoch: the batches of an epoch by its number, equally many in each.
        collate: makes a batch of its indices.
        steps: how many there are.
    """

    def __init__(
        self, epoch: Callable[[int], list[list[int]]], collate: Callable[[list[int]], Batch], steps: int
    ) -> None:
        self._epoch, self._collate, self._steps, self._step = epoch, collate, steps, 0

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
        # A caller that takes exactly all batches leaves the step at the end; the next round then starts anew.
        self._step = 0 if self._step >= self._steps else self._step
        epoch, batches = 0, self._epoch(0)
        size = len(batches)
        while self._step < self._steps:
            wanted, position = divmod(self._step, size)
            if wanted != epoch:
                epoch, batches = wanted, self._epoch(wanted)
            self._step += 1
            yield self._collate(batches[position])
        self._step = 0

    def state_dict(self) -> dict[str, Any]:
        """The number of the next step."""
        return {"step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the step of `state_dict`."""
        self._step = int(state_dict["step"])


class PinningDataModule(L.LightningDataModule):
    """Sends batches to a GPU through pinned memory: a copy from there delays neither the step nor the next batch."""

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if device.type == "cuda":
            alone = isinstance(batch, Tensor)
            batch = (
                batch.pin_memory()
                if alone
                else type(batch)(*(part if part is None else part.pin_memory() for part in batch))
            )
        return super().transfer_batch_to_device(batch, device, dataloader_idx)


class TextDataModule(PinningDataModule):
    """Lines of text in batches of at most `batch_tokens` tokens.

    Args:
        texts: what to train on.
        val: what to measure on; the same batches each time.
        batch_tokens: the most tokens in a batch, padding included; at least `max_len`.
        max_len: the most tokens of a line, BOS and EOS included; a longer one is cut there.
        steps: of the whole training.
        seed: draws the order.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        val: Sequence[str] = (),
        *,
        batch_tokens: int,
        max_len: int,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._train = tokenizer.sequences(texts, max_len)
        self._val = tokenizer.sequences(val, max_len)
        self._lengths = [len(sequence) for sequence in self._train]
        self._batch_tokens, self._steps, self._seed = batch_tokens, steps, seed

    def epoch(self, number: int) -> list[list[int]]:
        """The lines of each batch of an epoch."""
        return epoch_batches(self._lengths, self._seed, number, max_tokens=self._batch_tokens)

    def train_dataloader(self) -> StepLoader[TextBatch]:
        return StepLoader(self.epoch, lambda rows: TextBatch(pad([self._train[row] for row in rows])), self._steps)

    def val_dataloader(self) -> StepLoader[TextBatch]:
        lengths = [len(sequence) for sequence in self._val]
        batches = epoch_batches(lengths, 0, 0, max_tokens=self._batch_tokens)
        return StepLoader(
            lambda _: batches, lambda rows: TextBatch(pad([self._val[row] for row in rows])), len(batches)
        )


class LineDataModule(PinningDataModule):
    """Lines of text in batches of `batch_size` lines of mixed lengths.

    Args:
        train, val: the tokens of each line; to train on, and to measure on in the same batches each time.
        pad_id: pads the lines of a batch.
        batch_size: lines in a batch.
        steps: of the whole training.
        seed: draws the order.

    Attributes:
        prefix: the hidden states of the lines `shown`, below the layers that a step runs; None where a step runs all.
    """

    prefix: FrozenPrefix | None = None

    def __init__(
        self,
        train: Sequence[list[int]],
        val: Sequence[list[int]],
        *,
        pad_id: int,
        batch_size: int,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._train, self._val, self._pad_id, self._batch_size = train, val, pad_id, batch_size
        self._steps, self._seed = steps, seed

    @cached_property
    def shown(self) -> dict[int, int]:
        """The lines that some step of the training reads, numbered in their order."""
        rows: set[int] = set()
        done, epoch = 0, 0
        while done < self._steps and len(rows) < len(self._train):
            batches = self.epoch(epoch)[: self._steps - done]
            rows.update(row for batch in batches for row in batch)
            done, epoch = done + len(batches), epoch + 1
        return {row: place for place, row in enumerate(sorted(rows))}

    def epoch(self, number: int) -> list[list[int]]:
        """The lines of each batch of an epoch."""
        lengths = [len(line) for line in self._train]
        return epoch_batches(lengths, self._seed, number, max_rows=self._batch_size, by_length=False)

    def train_dataloader(self) -> StepLoader[TextBatch]:
        return StepLoader(self.epoch, self._batch, self._steps)

    def val_dataloader(self) -> StepLoader[TextBatch]:
        batches = epoch_batches([len(line) for line in self._val], 0, 0, max_rows=self._batch_size)
        return StepLoader(
            lambda _: batches, lambda rows: TextBatch(pad([self._val[row] for row in rows], self._pad_id)), len(batches)
        )

    def _batch(self, rows: list[int]) -> TextBatch:
        prefix = None if self.prefix is None else self.prefix.batch([self.shown[row] for row in rows])
        return TextBatch(pad([self._train[row] for row in rows], self._pad_id), prefix)


class SupportDataModule(PinningDataModule):
    """The pairs of a support set in batches of `batch_size`, states out of the encoded set.

    Args:
        batch_size: pairs in a batch; a smaller support set is one batch.
        max_len: the most tokens of a caption, BOS and EOS included.
        steps: of the whole training.
        seed: draws the order.

    Attributes:
        sequences: the tokens of each caption.
        prefix: their hidden states below the layers that a step runs; None where a step runs all layers.
    """

    prefix: FrozenPrefix | None = None

    def __init__(
        self,
        tokenizer: Tokenizer,
        pairs: Sequence[Pair],
        encoded: States,
        *,
        batch_size: int,
        max_len: int,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._rows = [pair.index for pair in pairs]
        self.sequences = tokenizer.sequences([pair.caption for pair in pairs], max_len)
        self._pad_id = tokenizer.special.pad
        self._lengths = [len(sequence) for sequence in self.sequences]
        self._encoded, self._batch_size = encoded, batch_size
        self._steps, self._seed = steps, seed

    def epoch(self, number: int) -> list[list[int]]:
        """The pairs of each batch of an epoch."""
        # Captions of like length in a batch would save padding, but every step would then pull towards one length:
        # with 1,024 shots that cost 0.045 token F1 on val.
        return epoch_batches(self._lengths, self._seed, number, max_rows=self._batch_size, by_length=False)

    def train_dataloader(self) -> StepLoader[CaptionBatch]:
        return StepLoader(self.epoch, self._batch, self._steps)

    def _batch(self, pairs: list[int]) -> CaptionBatch:
        tokens = pad([self.sequences[pair] for pair in pairs], self._pad_id)
        rows = [self._rows[pair] for pair in pairs]
        prefix = None if self.prefix is None else self.prefix.batch(pairs)
        return CaptionBatch(tokens, self._encoded.batch(rows), tensor(rows), prefix)


class TranslationDataModule(PinningDataModule):
    """Pairs of texts in batches of mixed lengths.

    Args:
        source, target: the tokenizers of the two languages.
        pairs: text and translation, to train on.
        val: to measure on; the same batches each time.
        batch_size: pairs in a batch.
        max_len: the most tokens of a text, BOS and EOS included.
        steps: of the whole training.
        seed: draws the order.
    """

    def __init__(
        self,
        source: Tokenizer,
        target: Tokenizer,
        pairs: Sequence[tuple[str, str]],
        val: Sequence[tuple[str, str]],
        *,
        batch_size: int,
        max_len: int,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._train, self._val = (
            list(
                zip(
                    source.sequences([pair[0] for pair in several], max_len),
                    target.sequences([pair[1] for pair in several], max_len),
                    strict=True,
                )
            )
            for several in (pairs, val)
        )
        self._batch_size, self._steps, self._seed = batch_size, steps, seed

    def epoch(self, number: int) -> list[list[int]]:
        """The pairs of each batch of an epoch."""
        lengths = [len(target) for _, target in self._train]
        # Mixed lengths, as in a support set: steps of one length each pull towards that length.
        return epoch_batches(lengths, self._seed, number, max_rows=self._batch_size, by_length=False)

    def train_dataloader(self) -> StepLoader[TranslationBatch]:
        return StepLoader(self.epoch, lambda rows: self._batch([self._train[row] for row in rows]), self._steps)

    def val_dataloader(self) -> StepLoader[TranslationBatch]:
        batches = epoch_batches([len(target) for _, target in self._val], 0, 0, max_rows=self._batch_size)
        return StepLoader(lambda _: batches, lambda rows: self._batch([self._val[row] for row in rows]), len(batches))

    @staticmethod
    def _batch(pairs: Sequence[tuple[list[int], list[int]]]) -> TranslationBatch:
        return TranslationBatch(pad([source for source, _ in pairs]), pad([target for _, target in pairs]))
