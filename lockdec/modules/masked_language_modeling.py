"""Prediction of masked tokens: how a text encoder is pretrained."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from lockdec.data.tokenizer import BOS_ID, EOS_ID, PAD_ID
from lockdec.modules.objective import Measured, Objective
from lockdec.optimizers.optimization import OptimizerConfig
from lockdec.training.batching import TextBatch
from lockdec.transformer.models import MaskedLanguageModel

_MASKED, _REPLACED = 0.8, 0.1  # of the tokens to be predicted; the rest stay as they are


def mask_tokens(
    tokens: Int[Tensor, "b t"],
    share: float,
    mask_id: int,
    generator: torch.Generator | None = None,
    begins_word: Bool[Tensor, " vocab"] | None = None,
) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """Choose tokens to be predicted, and mask most of them (Devlin et al. 2019, 3.1).

    Args:
        tokens: BOS, text, EOS, padding; only tokens of the text are chosen, and at least one of every text.
        share: of the tokens, how many are chosen.
        mask_id: what a masked token becomes; one above all others.
        generator: of the random choice; torch's global one where not given.
        begins_word: which ids begin a word, to choose whole words; None to choose each token by itself.

    Returns:
        The tokens as the encoder reads them, and which are to be predicted.
    """
    noise, kind = torch.rand(2, *tokens.shape, generator=generator).to(tokens.device)
    of_text = (tokens != PAD_ID) & (tokens != BOS_ID) & (tokens != EOS_ID)
    if begins_word is not None:  # all tokens of a word have the noise of its first
        first = torch.arange(tokens.shape[1], device=tokens.device) * begins_word.to(tokens.device)[tokens]
        noise = noise.gather(1, first.cummax(dim=1).values)
    noise = noise.masked_fill(~of_text, 2.0)
    chosen = of_text & ((noise < share) | (noise == noise.amin(dim=1, keepdim=True)))
    others = torch.randint(EOS_ID + 1, mask_id, tokens.shape, generator=generator).to(tokens.device)
    read = torch.where(chosen & (kind < _MASKED), mask_id, tokens)
    return torch.where(chosen & (kind >= _MASKED) & (kind < _MASKED + _REPLACED), others, read), chosen


class MaskedLanguageModeling(Objective):
    """Trains all of a masked language model on texts.

    Args:
        model: its vocabulary has one more token than the text: the mask, which is the last.
        masked: share of the tokens that are predicted.
        begins_word: as in `mask_tokens`.
    """

    def __init__(
        self,
        model: MaskedLanguageModel,
        optimizer: OptimizerConfig,
        steps: int,
        stage: str,
        masked: float,
        begins_word: Bool[Tensor, " vocab"] | None = None,
    ) -> None:
        super().__init__(stage, optimizer, steps)
        self.model, self.masked, self.begins_word = model, masked, begins_word

    def forward(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t vocab"]:
        """What belongs at each position."""
        logits: Tensor = self.model(tokens, tokens != PAD_ID)
        return logits

    def measure(self, batch: TextBatch, batch_idx: int) -> Measured:
        # A validation batch is masked alike each time, so that its losses can be compared.
        generator = None if self.training else torch.Generator().manual_seed(batch_idx)
        mask_id = self.model.encoder.config.vocab_size - 1
        read, chosen = mask_tokens(batch.tokens, self.masked, mask_id, generator, self.begins_word)
        logits = self.model.logits(self.model.encoder(read, batch.tokens != PAD_ID)[chosen])  # (n, vocab)
        accuracy = (logits.detach().argmax(-1) == batch.tokens[chosen]).float().mean()
        loss = F.cross_entropy(logits, batch.tokens[chosen])
        return Measured({"loss": loss, "accuracy": accuracy}, int(chosen.sum()))
