"""A captioner over an encoded set: it generates captions for rows, and scores given ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lockdec.console import track
from lockdec.data.tokenizer import Tokenizer, pad
from lockdec.encoders.encoded import States
from lockdec.evaluation.attention_statistics import attention_statistics
from lockdec.evaluation.candidates import candidates
from lockdec.evaluation.configuration import EvaluateConfig
from lockdec.evaluation.scoring import Candidate
from lockdec.modules.losses import next_token_loss
from lockdec.training.prefix import FrozenPrefix
from lockdec.transformer.models import Encoded, LockingModel, Prefix

CACHE = 2**29  # bytes of keys and values for which more inputs are captioned at a time
LOGITS = 2**27  # bytes of logits, likewise
MORE = 4  # how many batches are captioned together at most


@dataclass(frozen=True)
class Read:
    """Captions that a decoder has read below the lowest layer that depends on an input, shared by several losses.

    Attributes:
        sequences: their tokens.
        prefix: the hidden states of all tokens but the last; None where the lowest layer depends on an input.
    """

    sequences: Sequence[Sequence[int]]
    prefix: FrozenPrefix | None

    def close(self) -> None:
        """Remove the file of the hidden states, if there is one."""
        if self.prefix is not None:
            self.prefix.close()


class EncodedCaptioner:
    """Captions rows of an encoded set in batches, and scores given captions.

    Args:
        tokenizer: with the prompt that the model was finetuned with.
        device: where the model is; what it reads is brought there batch by batch.
    """

    def __init__(
        self,
        model: LockingModel,
        tokenizer: Tokenizer,
        encoded: States,
        decode: EvaluateConfig,
        device: torch.device,
    ) -> None:
        self.model, self.tokenizer, self.encoded, self.decode, self.device = model, tokenizer, encoded, decode, device
        self.generator = torch.Generator().manual_seed(decode.seed)  # of the CPU: draws the same on every device

    def captions(self, rows: Sequence[int], doing: str) -> list[Candidate]:
        """One caption a row, and how likely it is."""
        batches = self._batches(rows, self._together(rows[0]) if len(rows) > self.decode.batch_size else 1)
        return [caption for batch in track(batches, doing) for caption in self._generate(self.states(batch))]

    def any_caption(self) -> str:
        """The caption of the first input: the same for every input where all have the same states."""
        return self._generate(self.states([0]))[0].text

    def locked_caption(self) -> str:
        """The caption that the decoder generates while its bridge is locked: the same for every input."""
        self.model.lock()
        caption = self.any_caption()
        self.model.unlock()
        return caption

    def read(self, references: Sequence[Sequence[str]], folder: Path) -> Read:
        """The first reference of each row, for `loss` of this captioner and of others over the same decoder.

        Args:
            folder: for what does not fit into memory, until the `Read` is closed.

        Raises:
            StoreError: the disk has no room for that.
        """
        sequences = self.tokenizer.sequences([captions[0] for captions in references], self.model.room)
        layers = self.model.frozen_layers
        return Read(sequences, FrozenPrefix(self.model, sequences, layers, folder) if layers else None)

    @torch.inference_mode()
    def loss(self, rows: Sequence[int], read: Read, locked: bool = False) -> float:
        """Mean cross-entropy in nats per token of captions that have been read, given the rows' states."""
        if len(rows) != len(read.sequences):
            raise ValueError(f"{len(rows)} rows for {len(read.sequences)} captions that were read")
        total, count = 0.0, 0
        self.model.lock() if locked else self.model.unlock()
        kept = read.prefix if read.prefix is not None and read.prefix.layers <= self.model.frozen_layers else None
        length, special = len(self.tokenizer.prompt_tokens), self.tokenizer.special
        for places in self._batches(range(len(rows))):
            tokens = pad([read.sequences[place] for place in places], special.pad).to(self.device)
            encoded = None if locked else self.states([rows[place] for place in places])
            prefix = None if kept is None else Prefix(kept.batch(places).to(self.device), kept.layers)
            loss, real = next_token_loss(
                self.model, tokens, special.eos, encoded, pack=True, prefix=prefix, prompt_length=length
            )
            total, count = total + float(loss) * real, count + real
        self.model.unlock()
        return total / count

    def attention_statistics(self, rows: Sequence[int], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Whether cross-attention attends, measured on the first batch; see the function of this name."""
        rows, references = rows[: self.decode.batch_size], references[: self.decode.batch_size]
        encoded, tokens = self.states(rows), self._tokens(references)
        special, length = self.tokenizer.special, len(self.tokenizer.prompt_tokens)
        return attention_statistics(self.model, tokens, encoded, special.eos, prompt_length=length)

    def _generate(self, encoded: Encoded) -> list[Candidate]:
        found = candidates(self.model, self.tokenizer, encoded, self.decode, self.generator)
        return [best for best, *_ in found]

    def states(self, rows: Sequence[int]) -> Encoded:
        """The normalised states of some rows, on the model's device."""
        return self.encoded.batch(rows).to(self.device)

    def _tokens(self, references: Sequence[Sequence[str]]) -> Tensor:
        first = [captions[0] for captions in references]
        return self.tokenizer.batch(first, self.model.room).to(self.device)

    @torch.inference_mode()
    def _together(self, row: int) -> int:
        """How many batches to caption at a time: the last steps, for a few long captions, are as slow as the others."""
        if self.decode.strategy not in ("greedy", "beam"):
            return 1  # a draw depends on the inputs beside it
        beams = self.decode.beams if self.decode.strategy == "beam" else 1
        # The beams of an input share its memory and their prompt, which are counted for each of them here.
        sequences, positions = self.decode.batch_size * beams, self.decode.max_new_tokens
        cached = self.model.cache_bytes(self.states([row]), len(self.tokenizer.prompt_tokens) + positions)
        logits = 4 * self.model.config.vocab_size
        return 1 if cached is None else max(1, min(MORE, CACHE // (sequences * cached), LOGITS // (sequences * logits)))

    def _batches(self, items: Sequence[Any], together: int = 1) -> list[Sequence[Any]]:
        size = self.decode.batch_size * together
        return [items[start : start + size] for start in range(0, len(items), size)]
