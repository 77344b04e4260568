"""How likely captions are, token by token and word by word: given their inputs, and without any.

The difference of the two is the evidence of a word: how much likelier the input makes it than the words before it do
alone. Needs no lightning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lockdec.data.tokenizer import Tokenizer, pad
from lockdec.errors import LockdecError
from lockdec.modules.losses import before_real
from lockdec.transformer.encoded import Encoded
from lockdec.transformer.fast.chunks import IGNORED
from lockdec.transformer.models import LockingModel

_MOST_LOGITS = 1 << 25  # numbers at a time: 134 MB in float32


@dataclass(frozen=True)
class Word:
    """A word of a caption.

    Attributes:
        text: without the blanks around it.
        log_prob: log p(word | input, words before it), in nats: the sum over its tokens.
        evidence: log p(word | input, words before it) - log p(word | words before it), in nats, where the second is
            that of the locked decoder. Above 0 where the input makes the word likelier.
    """

    text: str
    log_prob: float
    evidence: float


@dataclass(frozen=True)
class Candidate:
    """A generated caption and how likely it is.

    Attributes:
        log_prob: log p(caption | input), in nats: the sum over its tokens.
        ids: its tokens, with the one that ends it, where that was generated.
    """

    text: str
    log_prob: float
    ids: tuple[int, ...] = field(repr=False)

    @property
    def tokens(self) -> int:
        """How many tokens it has, with the one that ends it."""
        return len(self.ids)

    @property
    def confidence(self) -> float:
        """The geometric mean of the probabilities of its tokens, from 0 to 1."""
        return math.exp(self.log_prob / self.tokens)


def token_log_probs(
    model: LockingModel,
    tokens: Int[Tensor, "b t"],
    encoded: Encoded | None,
    eos_id: int,
    prompt_length: int = 0,
) -> Float[Tensor, "b u"]:
    """log p(token | tokens before it, input) of all tokens but the first, in nats; 0 for prompt and padding.

    Args:
        tokens: BOS, prompt, caption, EOS, padding.
        encoded: one input for each row; None while the model is locked.
        eos_id, prompt_length: as in `lockdec.data.tokenizer.real_targets`.
    """
    rows = max(1, _MOST_LOGITS // (tokens.shape[1] * model.config.vocab_size))
    pieces = []
    with torch.inference_mode():
        for start in range(0, len(tokens), rows):
            some = slice(start, start + rows)
            given = None if encoded is None else Encoded(encoded.states[some], encoded.mask[some])
            hidden, wanted, real = before_real(
                model, tokens[some], eos_id, given, pack=True, prompt_length=prompt_length
            )
            losses = F.cross_entropy(model.logits(hidden).float(), wanted, ignore_index=IGNORED, reduction="none")
            pieces.append(losses.new_zeros(real.shape).masked_scatter(real, -losses))
    return torch.cat(pieces).clone()


def evidence(
    model: LockingModel,
    tokenizer: Tokenizer,
    captions: Sequence[Sequence[int]],
    encoded: Encoded,
) -> list[tuple[Word, ...]]:
    """The words of generated captions, one for each input, with what speaks for each word.

    Args:
        captions: their tokens, with EOS where it was generated, without BOS and prompt.
        encoded: normalised states on the device of the model.

    Raises:
        LockdecError: the model is locked, so that no input can speak for any word.
    """
    if model.locked:
        raise LockdecError(
            "evidence is log p(word|input) - log p(word|locked), and the decoder is locked: attach and unlock it first"
        )
    tokens = sequences(tokenizer, captions, encoded.states.device)
    special, prompt_length = tokenizer.special, len(tokenizer.prompt_tokens)
    given = token_log_probs(model, tokens, encoded, special.eos, prompt_length)
    with locked(model):
        alone = token_log_probs(model, tokens, None, special.eos, prompt_length)
    found = []
    for row, ids in enumerate(captions):
        words, places = word_places(tokenizer, ids)
        totals = [[0.0, 0.0] for _ in words]
        for position, place in enumerate(places, start=prompt_length):
            totals[place][0] += float(given[row, position])
            totals[place][1] += float(alone[row, position])
        both = zip(words, totals, strict=True)
        found.append(tuple(Word(word, log_prob, log_prob - without) for word, (log_prob, without) in both))
    return found


def sequences(tokenizer: Tokenizer, captions: Sequence[Sequence[int]], device: torch.device) -> Int[Tensor, "b t"]:
    """BOS, prompt, caption, EOS where it has one, padding."""
    special = tokenizer.special
    ended = [ended_ids(ids, special.eos) for ids in captions]
    start = [special.bos, *tokenizer.prompt_tokens]
    return pad([[*start, *ids] for ids in ended], special.pad).to(device)


def ended_ids(ids: Sequence[int], eos_id: int) -> list[int]:
    """The tokens up to the first EOS, which is kept: what follows is padding."""
    found = list(ids)
    return found[: found.index(eos_id) + 1] if eos_id in found else found


def word_places(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[list[str], list[int]]:
    """The words of a caption, and which of them each of its tokens belongs to, up to the one that ends it."""
    words, places, read = tokenizer.decode(ids).split(), list[int](), list[int]()
    for token in ids:
        if token == tokenizer.special.eos or not words:
            break
        read.append(token)
        so_far = len(tokenizer.decode(read).split()) - 1
        places.append(min(max(so_far, 0), len(words) - 1))  # a blank alone belongs to the word after it
    return words, places


@contextmanager
def locked(model: LockingModel) -> Iterator[None]:
    """Inside, the model is the pretrained decoder, which sees no input."""
    before = model.locked
    model.lock()
    try:
        yield
    finally:
        if not before:
            model.unlock()
