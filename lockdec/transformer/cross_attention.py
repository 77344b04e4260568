"""Cross-attention that can be locked.

Attachment                  the parameters that it is given: an attention, and what scales its output
LockingMultiHeadAttention   yields zeros and has no parameters until some are attached and unlocked
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lockdec.errors import LockdecError
from lockdec.transformer import fast
from lockdec.transformer.attention import MultiHeadAttention
from lockdec.transformer.configuration import CrossAttentionConfig
from lockdec.transformer.decoding.caching import Memory, PlugMemory
from lockdec.transformer.encoded import Encoded, PlugBatch
from lockdec.transformer.gates import GATES


class Attachment(NamedTuple):
    """The cross-attention of one plug in one layer.

    kind: how it was unlocked, one of the kinds in `lockdec.transformer.gates`.
    attention, gate: its parameters.
    dropout: on what it adds.
    """

    kind: str
    attention: MultiHeadAttention
    gate: nn.Parameter | None
    dropout: float

    def attend(
        self, query: Float[Tensor, "n t d_model"], memory: Memory, packing: fast.Packing | None = None
    ) -> Float[Tensor, "n t d_model"]:
        """What the query gets from the memory, gated. See `MultiHeadAttention.attend`."""
        out = self.attention.attend(query, memory, packing)
        return out if self.gate is None else GATES[self.kind].apply(self.gate, out)


class LockingMultiHeadAttention(nn.Module):
    """Cross-attention that is initially locked: it has no parameters, yields zeros, and costs nothing.

    `attach` gives it parameters, `unlock` lets it attend, and `lock` stops it again. How it starts is one of the kinds
    in `lockdec.transformer.gates`. Several plugs may be attached under names of their own. One of them is in use, and
    only its parameters are those of this module; the others wait beside it.

    Args:
        d_model: width of the decoder.

    Attributes:
        attention, gate: of the plug in use; None where it has none in this layer.
        waiting: the attachments of the other plugs, by name.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model
        self.locked = True
        self.plug = ""  # the name of the one in use
        self.kind, self.dropout = "plain", 0.0
        self.attention: MultiHeadAttention | None = None
        self.gate: nn.Parameter | None = None
        self.waiting: dict[str, Attachment] = {}

    @property
    def dtype(self) -> torch.dtype:
        """The type of its parameters, which may be wider than that of the decoder around it."""
        attached = [self.attention, *(attachment.attention for attachment in self.waiting.values())]
        return next((part.query.weight.dtype for part in attached if part is not None), torch.float32)

    def attach(self, plug: str, config: CrossAttentionConfig, encoder_dim: int) -> None:
        """Draw fresh parameters (torch's global generator) for states of width encoder_dim; in use, and locked."""
        attention = MultiHeadAttention(
            self.d_model,
            config.heads,
            config.d_q,
            config.d_k,
            config.d_v,
            key_dim=encoder_dim,
            value_dim=encoder_dim,
            bias=config.bias,
        )
        gate = GATES[config.unlock].start(attention.output)
        self.waiting[plug] = Attachment(config.unlock, attention, gate, config.dropout)
        self.use(plug)
        self.locked = True

    def use(self, plug: str) -> None:
        """Attend by this plug from now on; to nothing where it has no attachment in this layer."""
        if self.attention is not None:
            self.waiting[self.plug] = Attachment(self.kind, self.attention, self.gate, self.dropout)
        found = self.waiting.pop(plug, None)
        self.plug = plug
        if found is None:
            self.locked, self.attention, self.gate = True, None, None
        else:
            self.kind, self.attention, self.gate, self.dropout = found

    def attachment(self, plug: str) -> Attachment | None:
        """That of the plug of this name, in use or not; None where it has none in this layer."""
        if plug == self.plug and self.attention is not None:
            return Attachment(self.kind, self.attention, self.gate, self.dropout)
        return self.waiting.get(plug)

    def detach(self, plug: str) -> Attachment | None:
        """Drop the parameters of a plug; locked if it was in use. Returns them."""
        found = self.attachment(plug)
        self.waiting.pop(plug, None)
        if plug == self.plug:
            self.locked, self.attention, self.gate = True, None, None
        return found

    def lock(self) -> None:
        """Yield zeros again; the parameters stay."""
        self.locked = True

    def unlock(self) -> None:
        """Attend from now on.

        Raises:
            LockdecError: nothing was attached, or gate and W_o are both zero, so neither gets a gradient.
        """
        attention = self._attention()
        if self.gate is not None and not self.gate.any() and not attention.output.weight.any():
            raise LockdecError(
                f"cross_attention.unlock={self.kind}: its gate and its output projection are both zero, so "
                "neither can ever learn: start one of them from something else (zero_output has no gate)"
            )
        self.locked = False

    def _attention(self) -> MultiHeadAttention:
        if self.attention is None:
            raise LockdecError("no cross-attention is attached: call attach(config, encoder_dim) first")
        return self.attention

    def remember(self, encoded: Encoded | PlugBatch) -> Memory | PlugMemory[Attachment] | None:
        """Keys and values of encoder states; None while locked, or where no plug of a batch has cross-attention."""
        if isinstance(encoded, Encoded):
            if self.locked:
                return None
            return self._attention().remember(encoded.states, encoded.states, encoded.mask)
        parts = []
        for plug, rows, given in encoded.parts:
            found = self.attachment(plug)
            if found is not None and len(rows):
                parts.append((found, rows, found.attention.remember(given.states, given.states, given.mask)))
        return PlugMemory(len(encoded), tuple(parts)) if parts else None

    def forward(
        self,
        query: Float[Tensor, "b t d_model"],
        memory: Memory | PlugMemory[Attachment] | None,
        packing: fast.Packing | None = None,
    ) -> Float[Tensor, "b t d_model"]:
        """What the sequence gets from the memory, gated; zeros while locked. See `MultiHeadAttention.attend`."""
        if isinstance(memory, PlugMemory):
            if packing is None:
                return self._by_plugs(query, memory)
            return packing.pack(self._by_plugs(packing.unpack(query), memory))
        if self.locked or memory is None:
            return torch.zeros_like(query)
        return Attachment(self.kind, self._attention(), self.gate, self.dropout).attend(query, memory, packing)

    def _by_plugs(
        self, query: Float[Tensor, "n t d_model"], memory: PlugMemory[Attachment]
    ) -> Float[Tensor, "n t d_model"]:
        """What each row gets by its plugs; the beams of a row are side by side."""
        beams = len(query) // len(memory)
        out = torch.zeros_like(query)
        for attachment, rows, remembered in memory.parts:
            if len(rows):
                places = (rows[:, None] * beams + torch.arange(beams, device=rows.device)).flatten()
                out = out.index_add(0, places, attachment.attend(query[places], remembered).to(out))
        return out

    def weights(self, query: Float[Tensor, "b t d_model"], memory: Memory) -> Float[Tensor, "b heads t s"]:
        """The attention map."""
        return self._attention().weights(query, memory)
