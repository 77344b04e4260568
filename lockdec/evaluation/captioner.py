"""A captioner over an encoded set: it generates captions for rows, and scores given ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from lockdec.console import track
from lockdec.data.tokenizer import Tokenizer
from lockdec.encoders.encoded import States
from lockdec.evaluation.attention_statistics import attention_statistics
from lockdec.evaluation.candidates import candidates
from lockdec.evaluation.configuration import EvaluateConfig
from lockdec.evaluation.scoring import Candidate
from lockdec.modules.losses import next_token_loss
from lockdec.transformer.models import Encoded, LockingModel, Prefix

IN_MEMORY = 2**30  # bytes of hidden states that are kept for the next loss


@dataclass(frozen=True)
class Read:
    """Captions that a decoder has read below the lowest layer that depends on an input, shared by several losses.

    Attributes:
        batches: the tokens of each batch, and the hidden states of all but the last; None where they are not kept.
    """

    batches: Sequence[tuple[Int[Tensor, "_ _"], Prefix | None]]


class Captioner:
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
        return [
            caption for batch in track(self._batches(rows), doing) for caption in self._generate(self.states(batch))
        ]

    def any_caption(self) -> str:
        """The caption of the first input: the same for every input where all have the same states."""
        return self._generate(self.states([0]))[0].text

    def locked_caption(self) -> str:
        """The caption that the decoder generates while its bridge is locked: the same for every input."""
        self.model.lock()
        caption = self.any_caption()
        self.model.unlock()
        return caption

    @torch.inference_mode()
    def read(self, references: Sequence[Sequence[str]]) -> Read:
        """The first reference of each row, for `loss` of this captioner and of others over the same decoder."""
        layers, kept, batches = self.model.frozen_layers, 0, list[tuple[Tensor, Prefix | None]]()
        for texts in self._batches(references):
            tokens, prefix = self._tokens(texts), None
            kept += tokens.numel() * self.model.config.d_model * 4 if layers else 0
            if layers and kept <= IN_MEMORY:
                prefix = self.model.prefix(tokens[:, :-1], layers)
            batches.append((tokens, prefix))
        return Read(batches)

    @torch.inference_mode()
    def loss(self, rows: Sequence[int], read: Read, locked: bool = False) -> float:
        """Mean cross-entropy in nats per token of captions that have been read, given the rows' states."""
        total, count = 0.0, 0
        self.model.lock() if locked else self.model.unlock()
        for batch, (tokens, prefix) in zip(self._batches(rows), read.batches, strict=True):
            encoded = None if locked else self.states(batch)
            if prefix is not None and prefix.layers > self.model.frozen_layers:
                prefix = None
            length, eos = len(self.tokenizer.prompt_tokens), self.tokenizer.special.eos
            loss, real = next_token_loss(
                self.model, tokens, eos, encoded, pack=True, prefix=prefix, prompt_length=length
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

    def _batches(self, items: Sequence[Any]) -> list[Sequence[Any]]:
        size = self.decode.batch_size
        return [items[start : start + size] for start in range(0, len(items), size)]
