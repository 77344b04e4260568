"""Hosted decoders: any causal language model of transformers, kept as it is, with cross-attention before its layers.

A hosted model computes what it always computes. Before each chosen layer, a hook adds what cross-attention takes from
the encoded input; locked, the hook does nothing, so the model is bit for bit the one that was hosted. Its strategies of
generation are lockdec's, over the model's own cache.

An imported decoder (see `importing`) is faster here, and can be adapted and sharded; hosting is for all other families.
In an imported layer cross-attention comes between self-attention and feed-forward, in a hosted one before both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lockdec.errors import LockdecError
from lockdec.transformer.autoregressive import Prefix
from lockdec.transformer.bridge import Bridge
from lockdec.transformer.configuration import CrossAttentionConfig, HostedConfig, TransformerConfig
from lockdec.transformer.cross_attention import Attachment, LockingMultiHeadAttention
from lockdec.transformer.decoding.caching import Memory, PlugMemory, Rows
from lockdec.transformer.encoded import Encoded, PlugBatch
from lockdec.transformer.fast import Packing
from lockdec.transformer.importing import Options, options_of, unfilled
from lockdec.transformer.importing.files import Safetensors, plain_reason, require_modest
from lockdec.transformer.locking import LockingModel
from lockdec.transformer.places import CrossAttentionMap, LockingPlace, LockingPlaces
from lockdec.transformer.plugs import UNNAMED
from lockdec.transformer.sublayers import LockingAddNorm

Remembered = Memory | PlugMemory[Attachment] | None
UNBOUNDED = 2048  # positions of a model that names no largest one, such as one with relative positions


class HostedPlace(LockingPlace):
    """A place for cross-attention before a layer that is not ours."""

    def __init__(self, config: HostedConfig) -> None:
        super().__init__()
        self.cross_attention = LockingMultiHeadAttention(config.d_model)
        self.cross_attention_norm = LockingAddNorm(
            TransformerConfig(d_model=config.d_model, norm="pre", norm_kind=config.norm_kind, norm_eps=config.norm_eps)
        )


class HostedPlaces(LockingPlaces):
    """One place before each layer of a hosted model."""

    def __init__(self, config: HostedConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(HostedPlace(config) for _ in range(config.layers))

    def remember(self, encoded: Encoded | PlugBatch | None) -> list[Remembered]:
        """Each place's memory of the encoded input; None where it is locked."""
        return [None if encoded is None else place.remember(encoded) for place in self._places()]


class HostedCache:
    """What decoding token by token keeps: the hosted model's own cache, and the memories of the encoded input."""

    def __init__(self, memories: Sequence[Remembered], inputs: int, beams: int, past: Any) -> None:
        self.memories = [memory and memory.for_steps() for memory in memories]
        self.inputs, self.beams, self.past = inputs, beams, past

    def select(self, inputs: Int[Tensor, " n"] | None, parents: Int[Tensor, "b beams"] | None = None) -> None:
        """As `StepCache`."""
        if inputs is None and (parents is None or self.beams == 1):
            return
        device = parents.device if parents is not None else inputs.device  # type: ignore[union-attr]
        rows = torch.arange(self.inputs * self.beams, device=device).view(self.inputs, self.beams)
        if parents is not None:
            rows = rows.gather(1, parents)
        if inputs is not None:
            rows, kept = rows[inputs], Rows(inputs)
            self.memories = [memory and memory.select(kept) for memory in self.memories]
            self.inputs = len(inputs)
        self.past.reorder_cache(rows.flatten())


class HostedDecoderModel(LockingModel):
    """A causal language model of transformers with places for cross-attention, initially locked.

    Args:
        host: the model, with its head; nothing of it is changed.

    Raises:
        LockdecError: its layers, its head or its cache are not where those of causal language models are.
    """

    config: HostedConfig
    decoder: HostedPlaces

    def __init__(self, host: nn.Module) -> None:
        super().__init__()
        model: Any = host
        layers, stack, config = _layers_of(model)
        self.config = config
        self.host = host
        self.decoder = HostedPlaces(config)
        self._stack, self._layers = [stack], list(layers)  # in lists, so that their weights are not registered twice
        self._resumes: bool | None = None  # unknown until it is tried
        self._yields = 0  # how many values in a tuple; 0 where a layer yields its states alone
        self._begin: Prefix | None = None
        self._end: int | None = None
        self._memories: Sequence[Remembered] = ()
        self._maps: list[CrossAttentionMap] | None = None
        for number, layer in enumerate(layers):
            layer.register_forward_pre_hook(partial(self._before_layer, number), with_kwargs=True)

    @classmethod
    def from_huggingface(cls, folder: Path, dtype: torch.dtype = torch.float32) -> HostedDecoderModel:
        """The language model in a local folder, in evaluation mode.

        Raises:
            LockdecError: it is damaged, its files do not hold all its weights, or it cannot be hosted.
        """
        require_modest(folder)
        options, contents = options_of(folder), Safetensors(folder)
        _require_weights(options, contents)
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        quiet: Any = logging
        quiet.disable_progress_bar()
        read: Any = AutoModelForCausalLM
        try:
            host, loaded = read.from_pretrained(
                str(folder),
                dtype=dtype,
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
        except Exception as error:  # each kind of damage has its own
            raise LockdecError(f"{folder}: transformers cannot load it ({plain_reason(error)})") from error
        if missing := sorted(loaded["missing_keys"]):
            raise LockdecError(f"{folder}: the checkpoint lacks {', '.join(map(str, missing[:3]))}")
        if wrong := sorted(str(entry) for entry in loaded["mismatched_keys"]):
            raise LockdecError(f"{folder}: its config and its weights differ in shape: {wrong[0]}")
        return cls(host).eval()

    def attach_bridge(self, bridge: Bridge | None) -> None:
        """As `LockingModel.attach_bridge`; ConfigError as `Bridge.require_hostable`."""
        if bridge is not None:
            bridge.require_hostable()
        super().attach_bridge(bridge)

    @property
    def frozen_layers(self) -> int:
        """As `LockingModel.frozen_layers`; 0 where the model cannot continue from the states below a layer."""
        layers = super().frozen_layers
        if layers and self._resumes is None:
            self._resumes = self._can_resume(layers)
        return layers if self._resumes else 0

    def prefix(
        self, tokens: Int[Tensor, "b t"], layers: int, real: Bool[Tensor, "b t"] | None = None, shared: int = 0
    ) -> Prefix:
        self._require_room(tokens.shape[1])
        self._end = layers
        try:
            self._run(tokens, use_cache=False)
        except _ReachedError as reached:
            return Prefix(reached.states, layers)
        finally:
            self._end = None
        raise LockdecError(f"{self.config.architecture}: its layer {layers} does not run")

    def hidden(
        self, tokens: Int[Tensor, "b t"], encoded: Encoded | PlugBatch | None = None, prefix: Prefix | None = None
    ) -> Float[Tensor, "b t d_model"]:
        """The states that the model's head turns into logits; LockdecError as `AutoregressiveModel.hidden`."""
        self._require_room(tokens.shape[1])
        with self._attending(self.decoder.remember(self.admit(encoded))), self._beginning(prefix):
            return self._run(tokens, use_cache=False)

    def real_hidden(
        self,
        tokens: Int[Tensor, "b t"],
        packing: Packing,
        encoded: Encoded | PlugBatch | None = None,
        prefix: Prefix | None = None,
    ) -> Float[Tensor, "n d_model"]:
        """`hidden` at the packed positions only, though all are computed."""
        return packing.pack(self.hidden(tokens, encoded, prefix))[0]

    def logits(self, hidden: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n vocab"]:
        """What the model's own head makes of hidden states, with whatever it scales or caps."""
        host: Any = self.host
        states = hidden.unsqueeze(0) if hidden.dim() == 2 else hidden.reshape(-1, *hidden.shape[-2:])
        with self._given(states):
            logits: Tensor = host(
                input_ids=torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
            ).logits
        return logits.view(*hidden.shape[:-1], logits.shape[-1])

    def cache(self, encoded: Encoded | PlugBatch, max_len: int, beams: int = 1) -> HostedCache:
        """An empty cache of the model's own kind; LockdecError if no encoder was ever attached."""
        from transformers import DynamicCache

        self.require_attached()
        self._require_room(max_len)
        memories = self.decoder.remember(self.admit(encoded))
        host: Any = self.host
        return HostedCache(memories, len(encoded), beams, DynamicCache(config=host.config))

    def prefill(self, tokens: Int[Tensor, "_ t"], cache: HostedCache) -> Float[Tensor, "b vocab"]:
        logits = self.step(tokens.expand(cache.inputs, -1), cache)
        if cache.beams > 1:
            cache.past.reorder_cache(torch.arange(cache.inputs, device=tokens.device).repeat_interleave(cache.beams))
        return logits

    def step(self, tokens: Int[Tensor, "b t"], cache: HostedCache) -> Float[Tensor, "b vocab"]:
        with self._attending(cache.memories):
            hidden = self._run(tokens, past_key_values=cache.past, use_cache=True)
        return self.logits(hidden[:, -1:])[:, 0]

    @torch.no_grad()
    def attention_maps(
        self, tokens: Int[Tensor, "b t"], encoded: Encoded, prefix: Prefix | None = None
    ) -> list[CrossAttentionMap]:
        self.require_unlocked()
        self._maps = []
        try:
            self.hidden(tokens, encoded, prefix)
            return self._maps
        finally:
            self._maps = None

    def require_hostable(self) -> None:
        """Try everything that is done with a hosted model, on a few tokens and with cross-attention of its own.

        Raises:
            LockdecError: something of it does not work with this model; names its class.
        """
        name, trial = self.config.architecture, CrossAttentionConfig(heads=1, d_q=1, d_k=1, d_v=1, unlock="plain")
        tokens = torch.zeros(1, 3, dtype=torch.long, device=next(self.parameters()).device)
        encoded = Encoded(torch.ones(1, 1, 1, device=tokens.device), torch.ones_like(tokens[:, :1], dtype=torch.bool))
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            self.attach(trial, encoder_dim=1)
            self.unlock()
            try:
                attending = len(self.attention_maps(tokens, encoded))
                cache = self.cache(encoded, max_len=3, beams=2)
                self.prefill(tokens[:, :2], cache)
                cache.select(None, torch.zeros_like(tokens[:, :2]))
                predicted = self.step(tokens[:, 2:].expand(2, -1), cache)
            except LockdecError:
                raise
            except Exception as error:  # of whatever its code does otherwise
                raise LockdecError(f"{name} cannot be hosted ({plain_reason(error)})") from error
            finally:
                self.detach(UNNAMED)
        if attending != self.config.layers or predicted.shape != (2, self.config.vocab_size):
            raise LockdecError(f"{name} cannot be hosted: {attending} of its {self.config.layers} layers run, and it "
                               f"predicts {predicted.shape[-1]} tokens of {self.config.vocab_size}")  # fmt: skip

    def _require_room(self, length: int) -> None:
        if length > self.config.max_len:
            raise LockdecError(f"a sequence of {length} tokens is longer than the {self.config.max_len} positions of "
                               f"{self.config.architecture}: shorten it")  # fmt: skip

    def _run(self, tokens: Int[Tensor, "b t"], **options: Any) -> Float[Tensor, "b t d_model"]:
        """The hosted layers, without the head."""
        states: Tensor = self._stack[0](input_ids=tokens, **options).last_hidden_state
        return states

    def _can_resume(self, layers: int) -> bool:
        """Whether the model computes the same from the states below its layer `layers`, tried on a few tokens.

        It does not if later layers read more of the earlier ones than their states, such as keys and values.
        """
        tokens = torch.arange(3, device=next(self.parameters()).device).remainder(self.config.vocab_size)[None]
        training, yielded = self.training, list[Any]()
        self.eval()
        try:
            with torch.no_grad():
                watch = self._layers[0].register_forward_hook(lambda *of_layer: yielded.append(of_layer[-1]))
                whole = self._run(tokens, use_cache=False)
                watch.remove()
                self._yields = len(yielded[0]) if isinstance(yielded[0], tuple) else 0
                with self._beginning(self.prefix(tokens, layers)):
                    return torch.equal(self._run(tokens, use_cache=False), whole)
        except Exception:  # of whatever its code does otherwise
            return False
        finally:
            self.train(training)

    @contextmanager
    def _beginning(self, prefix: Prefix | None) -> Iterator[None]:
        """Within this context, the layers of the prefix are left out, and the one above them gets its states."""
        below = [] if prefix is None else self._layers[: prefix.layers]
        for layer in below:
            layer.forward = partial(_left_out, self._yields)
        self._begin = prefix
        try:
            yield
        finally:
            self._begin = None
            for layer in below:
                del layer.forward

    @contextmanager
    def _attending(self, memories: Sequence[Remembered]) -> Iterator[None]:
        """The hosted layers attend to these memories within this context."""
        self._memories = memories
        try:
            yield
        finally:
            self._memories = ()

    def _before_layer(self, number: int, layer: nn.Module, args: Any, options: Any) -> Any:
        """The input of a hosted layer, with what cross-attention adds to it; None to leave it as it is."""
        memory = self._memories[number] if self._memories else None
        begins = self._begin is not None and number == self._begin.layers
        if memory is None and number != self._end and not begins:
            return None
        x = args[0] if args else options.get("hidden_states")
        if not isinstance(x, Tensor) or x.shape[-1] != self.config.d_model:
            raise LockdecError(f"{self.config.architecture} cannot be hosted: its {type(layer).__name__} takes no "
                               f"hidden states of width {self.config.d_model} first")  # fmt: skip
        if number == self._end:
            raise _ReachedError(x)
        if self._begin is not None and begins:
            x = self._begin.hidden.to(x)
        if memory is not None:
            x = self._attended(number, x, memory)
        return ((x, *args[1:]), options) if args else (args, {**options, "hidden_states": x})

    def _attended(self, number: int, x: Float[Tensor, "b t d_model"], memory: Any) -> Float[Tensor, "b t d_model"]:
        place = self.decoder.layers[number]
        assert isinstance(place, HostedPlace)
        if self._maps is None or not isinstance(memory, Memory):
            return place.attended(x, memory)
        x, attended = place.mapped(x, memory)
        self._maps.append(attended)
        return x

    @contextmanager
    def _given(self, states: Float[Tensor, "b t d_model"]) -> Iterator[None]:
        """The hosted layers yield these states within this context, so that the model only runs its head."""
        stack, given = self._stack[0], _Given(states)
        stack.forward = given
        try:
            yield
        finally:
            del stack.forward
        if not given.used:
            raise LockdecError(f"{self.config.architecture} cannot be hosted: its head does not take what "
                               f"{type(stack).__name__} yields")  # fmt: skip


class _ReachedError(Exception):
    """Ends a run below a layer, with the states that this layer would have got."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states


def _left_out(values: int, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
    """Stands in for a layer whose states are not needed; its layers yield tuples of this many values, or no tuple."""
    return (hidden_states, *[None] * (values - 1)) if values else hidden_states


class _Given:
    """Stands in for a stack of layers and for its output: hidden states, and None for whatever else is asked for."""

    def __init__(self, states: Tensor) -> None:
        self.last_hidden_state, self.used = states, False

    def __call__(self, *_: Any, **__: Any) -> _Given:
        self.used = True
        return self

    def __getitem__(self, index: int) -> Tensor:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        return None


def _layers_of(host: Any) -> tuple[nn.ModuleList, Any, HostedConfig]:
    """The list of a model's layers, the module that runs them, and what has to be known of the model."""
    name = type(host).__name__
    sizes = getattr(host, "config", None)
    if sizes is None or not hasattr(host, "get_decoder") or host.get_output_embeddings() is None:
        raise LockdecError(f"{name} cannot be hosted: it is not a causal language model of transformers")
    sizes, stack = sizes.get_text_config(decoder=True), host.get_decoder()
    count, width = getattr(sizes, "num_hidden_layers", None), getattr(sizes, "hidden_size", None)
    lists = [part for part in stack.modules() if isinstance(part, nn.ModuleList) and len(part) == count]
    if not lists or not isinstance(width, int):
        raise LockdecError(f"{name} cannot be hosted: there is no list of its {count} layers in {type(stack).__name__}")
    if not getattr(host, "_supports_cache_class", True) or getattr(host, "_is_stateful", False):
        raise LockdecError(f"{name} cannot be hosted: it keeps a state instead of a cache of keys and values")
    eps = getattr(sizes, "rms_norm_eps", None)
    positions = [getattr(sizes, key, None) for key in ("max_position_embeddings", "max_seq_len", "seq_length")]
    config = HostedConfig(
        architecture=name,
        vocab_size=sizes.vocab_size,
        max_len=next((many for many in positions if isinstance(many, int)), UNBOUNDED),
        d_model=width,
        layers=len(lists[0]),
        norm_kind="layer" if eps is None else "rms",
        norm_eps=1e-5 if eps is None else float(eps),
    )
    return lists[0], stack, config


def _require_weights(options: Options, contents: Safetensors) -> None:
    """Raise LockdecError if the files hold too few numbers for the config, before so many get memory."""
    model = unfilled(options)
    tied = model.get_output_embeddings() if options.get("tie_word_embeddings") else None
    head = {id(parameter) for parameter in tied.parameters()} if tied is not None else set()
    needed = sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in head)
    stored = sum(torch.Size(entry.shape).numel() for entry in contents.entries.values())
    if needed > stored + sum(parameter.numel() for parameter in (tied.parameters() if tied is not None else ())):
        raise LockdecError(f"{options.source}: its config calls for {needed:,} weights, and the files hold {stored:,}")
