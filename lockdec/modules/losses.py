"""Losses over real next tokens, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from lockdec.data.tokenizer import EOS_ID, real_targets
from lockdec.transformer.fast import Packing, cross_entropy
from lockdec.transformer.fast.chunks import IGNORED
from lockdec.transformer.models import Encoded, LockingModel, Prefix, TransformerModel


def next_token_loss(
    model: LockingModel,
    tokens: Int[Tensor, "b t"],
    eos_id: int,
    encoded: Encoded | None = None,
    label_smoothing: float = 0.0,
    pack: bool = False,
    prefix: Prefix | None = None,
    prompt_length: int = 0,
    agreed: Callable[[int], int] = int,
) -> tuple[Float[Tensor, ""], int]:
    """Mean cross-entropy in nats over the real next tokens, and how many there are.

    Args:
        label_smoothing: the share of the target's probability that all tokens divide among themselves.
        tokens, encoded, pack, prefix, prompt_length: as in `before_real`.
        agreed: as in `cross_entropy`: what ranks that train together agree on.
    """
    hidden, wanted, real = before_real(model, tokens, eos_id, encoded, pack, prefix, prompt_length)
    loss = cross_entropy(model.logits, hidden, wanted, model.config.vocab_size, label_smoothing, agreed)
    return loss, int(real.sum())


def before_real(
    model: LockingModel,
    tokens: Int[Tensor, "b t"],
    eos_id: int,
    encoded: Encoded | None = None,
    pack: bool = False,
    prefix: Prefix | None = None,
    prompt_length: int = 0,
) -> tuple[Float[Tensor, "n d_model"], Int[Tensor, " n"], Bool[Tensor, "b t_minus_1"]]:
    """The hidden states at the positions before real next tokens, row by row.

    Logits are then computed at real positions only: with short captions in a padded batch, that saves most of them.

    Args:
        tokens: BOS, prompt, text, EOS, padding.
        pack: compute nothing at all on padding: pays where lengths are mixed in a batch.
        prefix: of all tokens but the last, where it is known already.
        prompt_length: how many tokens the prompt has, which are read and not predicted.

    Returns:
        The hidden states, and a few meaningless ones after them; the tokens after them, IGNORED for those few; and
        which of all tokens but the first are real.
    """
    seen, targets, real = tokens[:, :-1], tokens[:, 1:], real_targets(tokens, eos_id, prompt_length)
    packing = Packing(real)
    if not pack:
        hidden = packing.pack(model.hidden(seen, encoded, prefix))[0]
    elif not prompt_length:
        hidden = model.real_hidden(seen, packing, encoded, prefix)
    else:
        read = Packing(F.pad(real[:, prompt_length:], (prompt_length, 0), value=True))
        hidden = packing.pack(read.unpack(model.real_hidden(seen, read, encoded, prefix).unsqueeze(0)))[0]
    return hidden, F.pad(targets[real], (0, packing.filling), value=IGNORED), real


def translation_loss(
    model: TransformerModel,
    source: Int[Tensor, "b s"],
    target: Int[Tensor, "b t"],
    label_smoothing: float = 0.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], int]:
    """Over the real next tokens: mean cross-entropy in nats, the share predicted right, and how many there are."""
    wanted, real = target[:, 1:], real_targets(target, EOS_ID)
    hidden = model.decoder.hidden(target[:, :-1], model.encode(source))  # (b, t - 1, d_model)
    logits = model.decoder.logits(hidden[real])  # (n, vocab)
    loss = F.cross_entropy(logits, wanted[real], label_smoothing=label_smoothing)
    accuracy = (logits.detach().argmax(-1) == wanted[real]).float().mean()
    return loss, accuracy, int(real.sum())
