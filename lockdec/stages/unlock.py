"""Unlock the decoder: draw the few weights of its cross-attention, or another bridge, and measure what that changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch

from lockdec.bridges.budget import bridge_size, sized
from lockdec.config.schema import FewshotConfig
from lockdec.console import console, tell_once
from lockdec.data.captions import CaptionSet
from lockdec.data.fewshot import support_set
from lockdec.data.tokenizer import Tokenizer
from lockdec.encoders.contract import Encoder
from lockdec.encoders.encoded import EncodedSet
from lockdec.errors import ConfigError
from lockdec.evaluation.scoring import locked
from lockdec.evaluation.stored import load_decoder, load_tokenizer, save_bridge
from lockdec.runtime.devices import place_on
from lockdec.runtime.memory import require_memory
from lockdec.stages.attach import Attach
from lockdec.stages.host_decoder import HostDecoder
from lockdec.stages.stage import DecoderStage, Stage, Work
from lockdec.transformer.bridge import Bridge
from lockdec.transformer.fast import chunks
from lockdec.transformer.models import CrossAttentionConfig, LockingModel

PROBES = 32  # training pairs on which logits are compared before and after unlocking


@dataclass(frozen=True, kw_only=True)
class Unlock(Stage):
    """Draws the initial cross-attention, or another bridge; its weights are the artifact.

    Attributes:
        cross_attention: its sizes.
        bridge: what carries the states in its place; None for cross-attention.
        fewshot: the support set, for a bridge that remembers it.
        parameters: how many are to be trained, which chooses the d_v of cross-attention or the size of the bridge; None
            where sizes are as configured.
    """

    name: ClassVar[str] = "unlock"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[type[Stage], ...]] = (DecoderStage, Attach)
    neutral: ClassVar[tuple[str, ...]] = (*Stage.neutral, "bridge is null", "fewshot is null", "parameters is null")
    code: ClassVar[tuple[str, ...]] = (
        "lockdec.bridges.budget",
        "lockdec.bridges.prefix",
        "lockdec.bridges.resampler",
        "lockdec.bridges.retrieval",
        "lockdec.bridges.tuning",
        "lockdec.data.fewshot",
        "lockdec.evaluation.stored",
        "lockdec.transformer.attention",
        "lockdec.transformer.cross_attention",
    )
    data: CaptionSet
    cross_attention: CrossAttentionConfig
    bridge: Bridge | None = None
    fewshot: FewshotConfig | None = None
    parameters: int | None = None
    seed: int

    def check(self) -> None:
        if self.parameters is not None and self.parameters < 1:
            raise ConfigError(f"bridge.parameters={self.parameters}: use at least 1, or null for the configured sizes")
        if self.fewshot is not None and self.bridge is not None and self.fewshot.shots < 2:
            raise ConfigError(f"fewshot.shots=1: bridge={self.bridge.kind} shows each input the captions of others; "
                              "use 2 or more")  # fmt: skip

    def fingerprints(self) -> dict[str, str]:
        version = 1 if self.bridge is None else self.bridge.version
        data = {} if self.fewshot is None else {"data": self.data.fingerprint}
        return data | ({"bridge": str(version)} if version > 1 else {})

    def check_after(self, before: Mapping[str, Stage]) -> None:
        """Refuse layers that the decoder does not have, and a bridge that a hosted one cannot take."""
        decoder = before[DecoderStage.name]
        if isinstance(decoder, HostDecoder) and self.bridge is not None:
            self.bridge.require_hostable()
        if isinstance(decoder, DecoderStage) and "layers" in decoder.sizes:
            self.cross_attention.layer_numbers(decoder.sizes["layers"])

    def check_support(self, fewshot: FewshotConfig, support: Sequence[tuple[str, str]]) -> None:
        """Raise ConfigError where what is unlocked has learned already, and from other ids and captions than these."""
        return

    def rehearse(self, device: torch.device, before: Mapping[str, Stage], keys: Mapping[str, str]) -> None:
        """Refuse sizes that do not fit in memory, and `parameters` that no size reaches, before any stage works."""
        if self.parameters is not None:
            require_memory(f"bridge.parameters={self.parameters}", self.parameters)
        decoder, attach = before.get(DecoderStage.name), before.get(Attach.name)
        model = decoder.undrawn() if isinstance(decoder, DecoderStage) else None
        if model is not None and isinstance(attach, Attach):
            # The width of states of an encoder that is pretrained here is not known yet: at least 1.
            self.require_memory(model, attach.encoder.dim if isinstance(attach.encoder, Encoder) else 1)
            if self.parameters is not None and isinstance(attach.encoder, Encoder):
                with suppress(RuntimeError, TypeError):  # a bridge that needs the values of weights to be drawn
                    sized(self.bridge, self.cross_attention, self.parameters, model, attach.encoder.dim)

    def require_memory(self, model: LockingModel, encoder_dim: int) -> None:
        """Raise ConfigError unless this machine could hold what is drawn.

        Sizes are those of the config. One that `parameters` chooses is at least 1.
        """
        bridge, attention, attended = self.bridge, self.cross_attention, encoder_dim
        if self.parameters is not None and (bridge is None or bridge.sized_by is None):
            attention = replace(attention, d_v=1)
        elif self.parameters is not None and bridge is not None and bridge.sized_by is not None:
            bridge = replace(bridge, **{bridge.sized_by: 1})
        if bridge is not None:
            size, width = bridge_size(bridge, model, encoder_dim)
            require_memory(bridge.described, size)
            if width is None:
                return
            attended = width
        layers = len(attention.layer_numbers(model.config.layers))
        require_memory(attention.described, layers * attention.least_parameters(model.config.d_model, attended))

    @property
    def dtype(self) -> str | None:
        """The precision of the decoder, where what is attached asks for one."""
        return None

    def make(self, work: Work) -> dict[str, Any]:
        encoded = EncodedSet.open(work.parent(Attach).folder)
        if encoded.max_states == 1 and self.bridge is None:
            tell_once("  unlock: every input has a single state, so attention has no choice: d_q and d_k cannot matter")
        tokenizer = load_tokenizer(*work.decoder)
        model = load_decoder(*work.decoder, device=work.device, dtype=self.dtype)
        sections = self.draw(model, encoded, tokenizer, work)
        save_bridge(model, work.folder)

        rows = self.data.splits["train"][:PROBES]
        captions = [self.data.captions[row][0] for row in rows]
        device = place_on(model, work.device)  # after the weights are drawn: on every device they are the CPU's
        tokens = tokenizer.batch(captions, max_len=model.room)[:, :-1].to(device)
        with torch.inference_mode():
            model.unlock()
            unlocked = model.hidden(tokens, encoded.batch(rows).to(device)).flatten(0, 1)
            with locked(model):
                before = model.hidden(tokens).flatten(0, 1)
            deltas = []
            for part in chunks(len(before), model.config.vocab_size):
                logits = model.logits(unlocked[part])
                with locked(model):  # by its own head, since a bridge may change that, too
                    deltas.append((logits - model.logits(before[part])).abs().max())
        trained = {"cross_attention": 0, "bridge": 0}
        for name, weight in model.bridge_parameters().items():
            trained["bridge" if name.startswith("bridge.") else "cross_attention"] += weight.numel()
        others = model.plug_parameters - trained["cross_attention"]  # those of plugs beside the first in use
        trained["cross_attention"] += others
        trained = {name: count for name, count in trained.items() if count}
        total, trainable = others + sum(weight.numel() for weight in model.parameters()), sum(trained.values())
        return {
            **sections,
            "parameters": {
                "total": total,
                "trainable": trainable,
                "per_module": {"decoder": total - trainable, **trained},
            },
            "unlock": {"max_abs_logit_delta": float(max(deltas))} | ({"dtype": self.dtype} if self.dtype else {}),
        }

    def draw(self, model: LockingModel, encoded: EncodedSet, tokenizer: Tokenizer, work: Work) -> dict[str, Any]:
        """Attach what carries the states, in its initial weights; returns its sections of result.json.

        Raises:
            ConfigError: it cannot have the wanted number of parameters.
        """
        import lightning as L

        bridge, attention, size, encoder_dim = self.bridge, self.cross_attention, None, encoded.dim
        self.require_memory(model, encoder_dim)
        if self.parameters is not None:
            bridge, attention, size = sized(bridge, attention, self.parameters, model, encoder_dim)
        L.seed_everything(self.seed, verbose=False)
        if bridge is not None:
            bridge = replace(bridge)  # what the config has built may be drawn again, by another cell of a sweep
            bridge.draw(model, encoder_dim)
            if self.fewshot is not None:
                pairs = support_set(self.data, self.fewshot.shots, self.fewshot.support_seed, self.fewshot.references)
                rows = [pair.index for pair in pairs]
                captions = tokenizer.sequences([pair.caption for pair in pairs], model.config.max_len)
                bridge.remember(encoded.pooled(rows), captions, rows)
            model.attach_bridge(bridge)
        attended_dim = encoder_dim if bridge is None else bridge.attended_dim
        if attended_dim is not None:
            model.attach(attention, attended_dim)
        sections: dict[str, Any] = {}
        had = sum(weight.numel() for weight in model.bridge_parameters().values())
        if model.plug is not None:
            of_attention = sum(weight.numel() for weight in model.cross_attention_parameters().values())
            sections["cross_attention"] = {**asdict(attention), "parameters": of_attention}
        kind, settings = ("cross_attention", {}) if bridge is None else (bridge.kind, bridge.settings)
        sections["bridge"] = {"kind": kind, **settings, "wanted": self.parameters, "parameters": had}
        if size is not None and size.coarse:
            console.print(f"  unlock: bridge.parameters={size.wanted}, and there are {had}: {size.coarse}")
        elif self.parameters is not None and size is None:
            console.print(f"  unlock: bridge.parameters={self.parameters} chooses nothing here: {had} are trained")
        return sections
