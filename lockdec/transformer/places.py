"""The places for cross-attention in a decoder: one per layer, attached, locked and unlocked together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from lockdec.errors import LockdecError
from lockdec.transformer.configuration import CrossAttentionConfig
from lockdec.transformer.cross_attention import Attachment, LockingMultiHeadAttention
from lockdec.transformer.decoding.caching import Memory, PlugMemory
from lockdec.transformer.encoded import Encoded, PlugBatch
from lockdec.transformer.fast import Packing
from lockdec.transformer.sublayers import LockingAddNorm


@dataclass(frozen=True)
class CrossAttentionMap:
    """What one layer's cross-attention attends to, and how much it adds to the residual stream.

    weights: of each encoder state, for each position.
    cross_norm: the Euclidean norm of what is added.
    residual_norm: that of what it is added to.
    """

    weights: Float[Tensor, "b heads t s"]
    cross_norm: Float[Tensor, "b t"]
    residual_norm: Float[Tensor, "b t"]

    def after(self, positions: int) -> CrossAttentionMap:
        """The same without the first positions."""
        kept = slice(positions, None)
        return CrossAttentionMap(self.weights[:, :, kept], self.cross_norm[:, kept], self.residual_norm[:, kept])


class LockingPlace(nn.Module):
    """A place for cross-attention, with its add-and-norm: initially locked, without parameters."""

    cross_attention: LockingMultiHeadAttention
    cross_attention_norm: LockingAddNorm

    def attach(self, plug: str, config: CrossAttentionConfig, encoder_dim: int) -> None:
        """Draw fresh cross-attention parameters; the place is locked."""
        self.cross_attention.attach(plug, config, encoder_dim)
        self.cross_attention_norm.dropout.p = config.dropout

    def use(self, plug: str) -> None:
        """Attend by this plug from now on."""
        self.cross_attention.use(plug)
        self.cross_attention_norm.dropout.p = self.cross_attention.dropout

    def remember(self, encoded: Encoded | PlugBatch) -> Memory | PlugMemory[Attachment] | None:
        """The keys and values that this place attends to; None while locked."""
        return self.cross_attention.remember(encoded)

    def attended(
        self,
        x: Float[Tensor, "b t d_model"],
        memory: Memory | PlugMemory[Attachment],
        packing: Packing | None = None,
    ) -> Float[Tensor, "b t d_model"]:
        """Cross-attention, added and normalised, in the precision of its own weights; memory is from `remember`."""
        wide = x.to(self.cross_attention.dtype)
        return cast(Tensor, self.cross_attention_norm(wide, lambda y: self.cross_attention(y, memory, packing))).to(x)

    def mapped(self, x: Float[Tensor, "b t d_model"], memory: Memory) -> tuple[Tensor, CrossAttentionMap]:
        """`attended`, and what it attends to."""
        wide = x.to(self.cross_attention.dtype)
        query = self.cross_attention_norm.norm(wide) if self.cross_attention_norm.pre else wide
        after = self.attended(wide, memory)
        weights = self.cross_attention.weights(query, memory)
        return after.to(x), CrossAttentionMap(weights, (after - wide).norm(dim=-1), wide.norm(dim=-1))


class LockingPlaces(nn.Module):
    """The places for cross-attention of a whole decoder, attached, locked and unlocked together."""

    layers: nn.ModuleList

    def _places(self) -> list[LockingPlace]:
        return cast("list[LockingPlace]", list(self.layers))

    def _attached(self) -> list[LockingPlace]:
        return [place for place in self._places() if place.cross_attention.attention is not None]

    @property
    def attached(self) -> bool:
        """Whether any place has cross-attention parameters."""
        return bool(self._attached())

    @property
    def below_cross_attention(self) -> int:
        """How many layers are below the lowest one with cross-attention; 0 if there is none."""
        attached = [place.cross_attention.attention is not None for place in self._places()]
        return attached.index(True) if any(attached) else 0

    @property
    def locked(self) -> bool:
        """Whether no place attends to an encoder."""
        return all(place.cross_attention.locked for place in self._places())

    def attach(self, plug: str, config: CrossAttentionConfig, encoder_dim: int) -> None:
        """Draw fresh cross-attention parameters for the layers that the config names; in use, and locked."""
        chosen = config.layer_numbers(len(self.layers))
        for number, place in enumerate(self._places()):
            if number in chosen:
                place.attach(plug, config, encoder_dim)
            else:
                place.use(plug)

    def put(self, plug: str, attachments: Sequence[Attachment | None]) -> None:
        """Attach what `detach` returned; in use, and locked."""
        for place, attachment in zip(self._places(), attachments, strict=True):
            if attachment is not None:
                place.cross_attention.waiting[plug] = attachment
            place.use(plug)
            place.cross_attention.lock()

    def detach(self, plug: str) -> list[Attachment | None]:
        """Drop the parameters of a plug, and return those of each place."""
        return [place.cross_attention.detach(plug) for place in self._places()]

    def use(self, plug: str) -> None:
        """Attend by this plug from now on; unlocked where it was."""
        locked = self.locked
        for place in self._places():
            place.use(plug)
            place.cross_attention.locked = locked or place.cross_attention.attention is None

    def attachments(self, plug: str) -> list[Attachment]:
        """What a plug adds to the places where it adds something."""
        found = [place.cross_attention.attachment(plug) for place in self._places()]
        return [attachment for attachment in found if attachment is not None]

    def waiting(self) -> Iterator[Attachment]:
        """The attachments of all plugs that are not in use."""
        for place in self._places():
            yield from place.cross_attention.waiting.values()

    def unlock(self) -> None:
        """Let what is attached attend; LockdecError if nothing is attached or what is attached can never learn."""
        if not self.attached:
            raise LockdecError("unlock() before attach(): call attach(CrossAttentionConfig(...), encoder_dim) first")
        for place in self._attached():
            place.cross_attention.unlock()

    def lock(self) -> None:
        """Be the GPT again; the cross-attention parameters stay."""
        for place in self._places():
            place.cross_attention.lock()
