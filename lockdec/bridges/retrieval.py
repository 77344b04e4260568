"""Retrieval: the captions of the most similar inputs of the support set stand before the tokens, as examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from lockdec.bridges.prefix import pooled
from lockdec.errors import ConfigError
from lockdec.transformer.bridge import Bridge
from lockdec.transformer.encoded import Encoded
from lockdec.transformer.plugs import PluggableModel

NONE = -1  # pads captions


@dataclass(eq=False, kw_only=True)
class Retrieval(Bridge):
    """Examples for each input, which teach a frozen decoder without training (SmallCap, Ramos et al. 2022).

    Captions of the support set are put one after the other, each as the decoder was trained on text (BOS, caption,
    EOS), that of the most similar input last. They are as many as fill `length` positions, cut at the left, and begin
    anew where the support set has too few. So all rows of a batch have prompts of one length, and need no mask.
    Similarity is the cosine of the mean normalised states, as in the control `nearest_neighbour`.

    Attributes:
        length: how many positions of the decoder the examples take.
        entries: captions that it knows; set by `remember`.
        longest: tokens of the longest of them; set by `remember`.
        keys, captions, rows: of each: the normalised mean state of its input, its tokens, and which input it is of.
    """

    kind: ClassVar[str] = "retrieval"
    length: int = 32
    entries: int = 0
    longest: int = 0
    keys: Float[Tensor, "n d"] = field(init=False, repr=False)
    captions: Int[Tensor, "n longest"] = field(init=False, repr=False)
    rows: Int[Tensor, " n"] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 1:
            raise ConfigError(f"bridge.length={self.length}: use at least 1 position")

    @property
    def positions(self) -> int:
        return self.length

    @property
    def start(self) -> int:
        return self.length

    def draw(self, decoder: PluggableModel, encoder_dim: int) -> None:
        model: Any = decoder
        self.encoder_dim, self._embedding = encoder_dim, (model.embedding,)  # in a tuple: its weights are not ours
        self.register_buffer("keys", torch.zeros(self.entries, encoder_dim))
        self.register_buffer("captions", torch.full((self.entries, self.longest), NONE))
        self.register_buffer("rows", torch.full((self.entries,), NONE))

    def remember(self, means: Float[Tensor, "n d"], captions: Sequence[Sequence[int]], rows: Sequence[int]) -> None:
        self.entries, self.longest = len(captions), max(map(len, captions))
        self.keys = F.normalize(means, dim=-1)
        self.captions = torch.tensor([[*ids, *[NONE] * (self.longest - len(ids))] for ids in captions])
        self.rows = torch.tensor(list(rows))

    def examples(self, encoded: Encoded) -> Int[Tensor, "b k"]:
        """The tokens that stand before those of each input."""
        similarity = F.normalize(pooled(encoded).to(self.keys), dim=-1) @ self.keys.T  # (b, entries)
        if self.own is not None:
            similarity = similarity.masked_fill(self.own[:, None] == self.rows, -torch.inf)
        order = similarity.sort(dim=1, descending=True, stable=True).indices.tolist()
        known = similarity.isfinite().sum(1).tolist()
        texts = [[token for token in ids if token != NONE] for ids in self.captions.tolist()]
        found = []
        for ranking, count in zip(order, known, strict=True):
            ids: list[int] = []
            for entry in cycle(ranking[:count]):
                ids = texts[entry] + ids
                if len(ids) >= self.length:
                    break
            found.append(ids[-self.length :])
        return torch.tensor(found).to(encoded.states.device)

    def soft_prompt(self, encoded: Encoded) -> Float[Tensor, "b k d_model"]:
        vectors: Tensor = self._embedding[0](self.examples(encoded))  # tokens, which have positions
        return vectors


@dataclass(eq=False, kw_only=True)
class RetrievalWithCrossAttention(Retrieval):
    """The same examples, and cross-attention to the states, which learns to use both (EVCap, Li et al. 2024)."""

    kind: ClassVar[str] = "retrieval_cross_attention"

    @property
    def attended_dim(self) -> int:
        return self.encoder_dim
