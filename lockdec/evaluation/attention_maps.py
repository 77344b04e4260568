"""Where a captioner attends for each word of a caption, and how the states of an input are laid out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lockdec.data.tokenizer import Tokenizer
from lockdec.evaluation.scoring import sequences, word_places
from lockdec.transformer.encoded import Encoded
from lockdec.transformer.models import LockingModel

if TYPE_CHECKING:
    from lockdec.evaluation.captioner import EncodedCaptioner

# States in front of a square grid: none, a class token (ViT, CLIP), or one and four registers (DINOv2).
_APART = (0, 1, 5)


class Layout(NamedTuple):
    """How the states of a picture are laid out.

    Attributes:
        rows, columns: of the grid of all states but the first `apart`.
        apart: how many states belong to no place, such as a class token.
    """

    rows: int
    columns: int
    apart: int


@dataclass(frozen=True)
class Attention:
    """What each word of a caption attends to.

    Attributes:
        weights: of each state of the input, for each word; the mean over heads, layers and the word's tokens. Each row
            has the sum 1. There are no states where the bridge does not attend to them, or several plugs do at once.
        grid: where the states of a picture form one: its rows and columns, and how many states before it belong to no
            place, such as a class token.
        labels: the word that each state encodes, where the input is a text.
    """

    weights: Float[Tensor, "words states"]
    grid: Layout | None
    labels: tuple[str, ...] | None

    def __repr__(self) -> str:
        """Its sizes in place of the weights, which would fill a screen."""
        words, states = self.shape
        return f"Attention({words} words, {states} states, grid={self.grid}, labels={self.labels})"

    @property
    def shape(self) -> tuple[int, int]:
        """(words, states)."""
        words, states = self.weights.shape
        return words, states


def layout(states: int) -> Layout | None:
    """The square grid that this many states of a picture form; None if they form none, as a single state."""
    for apart in _APART:
        side = math.isqrt(max(states - apart, 0))
        if side > 1 and side * side == states - apart:
            return Layout(side, side, apart)
    return None


def word_attention(
    model: LockingModel,
    tokenizer: Tokenizer,
    captions: Sequence[Sequence[int]],
    encoded: Encoded,
) -> list[Float[Tensor, "words states"]]:
    """How much each word of a caption attends to each state of its input, on the CPU.

    Args:
        captions: their tokens, one caption for each input, without BOS and prompt.
        encoded: normalised states on the device of the model.

    Returns:
        For each word the mean over heads, layers and its tokens, over the real states of the input, with sum 1; no
        states where the bridge does not attend to them.
    """
    if not model.attends:
        return [torch.zeros(len(word_places(tokenizer, ids)[0]), 0) for ids in captions]
    tokens = sequences(tokenizer, captions, encoded.states.device)
    maps = model.attention_maps(tokens[:, :-1], encoded)
    attended = torch.stack([found.weights.mean(dim=1) for found in maps]).mean(dim=0).cpu()  # (b, t, s)
    start, real = len(tokenizer.prompt_tokens), encoded.mask.cpu()
    result = []
    for row, ids in enumerate(captions):
        words, places = word_places(tokenizer, ids)
        weights: list[list[Tensor]] = [[] for _ in words]
        for position, place in enumerate(places, start=start):
            weights[place].append(attended[row, position])
        means = [torch.stack(parts).mean(dim=0) if parts else attended[row, start] for parts in weights]
        over = torch.stack(means) if means else attended.new_zeros(0, attended.shape[-1])
        over = over[:, real[row]]
        result.append(over / over.sum(dim=1, keepdim=True))
    return result


def attention_maps(
    captioner: EncodedCaptioner, rows: Sequence[int], captions: Sequence[str]
) -> list[tuple[int, dict[str, Any]]]:
    """The attention over an input's states, word by word.

    Args:
        rows: of the captioner's encoded set.
        captions: one for each row, as the captioner generated it.

    Returns:
        Each row with its `words`, the `grid` (rows, columns), the `weights` of each word over the cells, row by row,
        and in `apart` those of the states that belong to no cell; together they have the sum 1. Nothing where the
        states form no grid.
    """
    tokenizer, found = captioner.tokenizer, layout(captioner.encoded.max_states)
    if not rows or found is None or not captioner.model.attends:
        return []
    room = captioner.model.room - 1 - len(tokenizer.prompt_tokens)
    ids = [tokens[:room] for tokens in tokenizer.encode_batch(captions)]
    attended = word_attention(captioner.model, tokenizer, ids, captioner.states(rows))
    result = []
    for row, tokens, weights in zip(rows, ids, attended, strict=True):
        cells = [[round(float(cell), 5) for cell in word] for word in weights]
        shown: dict[str, Any] = {"words": word_places(tokenizer, tokens)[0], "grid": [found.rows, found.columns]}
        shown["weights"] = [word[found.apart :] for word in cells]
        if found.apart:
            shown["apart"] = [word[: found.apart] for word in cells]
        result.append((row, shown))
    return result
