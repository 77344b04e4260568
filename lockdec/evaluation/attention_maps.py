"""Where a captioner attends for each word of a caption, on inputs whose states form a square grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lockdec.evaluation.captioner import Captioner


def attention_maps(
    captioner: Captioner, rows: Sequence[int], captions: Sequence[str]
) -> list[tuple[int, dict[str, Any]]]:
    """The attention over an input's states, word by word.

    Args:
        rows: of the captioner's encoded set.
        captions: one for each row, as the captioner generated it.

    Returns:
        Each row with its `words`, the `grid` (rows, columns), and the `weights` of each word: the mean over heads,
        layers and the word's tokens, over the cells row by row, with sum 1. Nothing where states form no square grid.
    """
    tokenizer, states = captioner.tokenizer, captioner.encoded.max_states
    side = math.isqrt(states)
    if not rows or side * side != states:
        return []
    tokens = tokenizer.batch(captions, captioner.model.config.max_len)
    looks = captioner.model.attention_maps(tokens[:, :-1].to(captioner.device), captioner.states(rows))
    attended = torch.stack([look.weights.mean(dim=1) for look in looks]).mean(dim=0).cpu()  # (b, t, s)
    start = 1 + len(tokenizer.prompt_tokens)  # of the caption
    result = []
    for index, row in enumerate(rows):
        words = captions[index].split()
        weights: list[list[Tensor]] = [[] for _ in words]
        for position in range(start, tokens.shape[1]):
            word = len(tokenizer.decode(tokens[index, start : position + 1].tolist()).split()) - 1
            if tokens[index, position] == tokenizer.special.eos:
                break
            if 0 <= word < len(words):
                weights[word].append(attended[index, position - 1])
        means = [torch.stack(parts).mean(dim=0) if parts else attended[index, start - 1] for parts in weights]
        cells = [[round(float(cell), 5) for cell in mean / mean.sum()] for mean in means]
        result.append((row, {"words": words, "grid": [side, side], "weights": cells}))
    return result
