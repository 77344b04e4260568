"""The sizes and choices of a transformer as plain data, checked in one place.

Imports no torch, so that a configuration schema can be built from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lockdec.errors import ConfigError

NORMS = ("pre", "post", "sandwich", "parallel")
NORM_KINDS = ("layer", "rms")
POSITIONS = ("learned", "sinusoidal", "rope")
ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "swiglu", "geglu_tanh")
BIASES = ("all", "qkv", "none")
STRATEGIES = ("greedy", "beam", "nucleus", "top_k")
ZERO_INITIALISED = ("zero_output", "tanh_gate", "rezero", "layerscale")  # unlocking by these changes no logits
UNLOCKS = (*ZERO_INITIALISED, "plain")
MOST_SEQUENCES = 1_000  # that are generated for one input
MOST_LAYERS = 10_000  # of a transformer; the deepest that are trained have some hundreds


def _choices(options: Sequence[object]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    words = [str(option) for option in options]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def require(holds: bool, key: str, value: object, allowed: str) -> None:
    """Raise ConfigError `key=value: allowed` unless `holds`."""
    if not holds:
        raise ConfigError(f"{key}={value}: {allowed}")


def require_choice(key: str, value: object, options: Sequence[str]) -> None:
    """Raise ConfigError unless `value` is one of `options`."""
    require(value in options, key, value, f"use {_choices(options)}")


def require_counts(group: str, **values: int) -> None:
    """Raise ConfigError unless every value is at least 1."""
    for name, value in values.items():
        require(value >= 1, f"{group}.{name}", value, "use a whole number of at least 1")


def layer_numbers(key: str, chosen: Any, layers: int) -> tuple[int, ...]:
    """Which layers of a decoder are chosen, from the lowest to the highest.

    Args:
        key: of the choice, for errors.
        chosen: all, last_n (the last n layers), every_n (the last of each n layers), or a list of numbers from 0.
        layers: how many the decoder has.

    Raises:
        ConfigError: the choice is none of these, or there are not so many layers.
    """
    if chosen == "all":
        return tuple(range(layers))
    numbers: list[int] = []
    if isinstance(chosen, str):
        kind, _, digits = chosen.partition("_")
        n = int(digits) if digits.isdecimal() else 0
        if 1 <= n <= layers and kind in ("last", "every"):
            numbers = list(range(layers - n, layers) if kind == "last" else range(n - 1, layers, n))
    elif isinstance(chosen, Sequence):
        numbers = list(chosen)
    legal = all(isinstance(number, int) and 0 <= number < layers for number in numbers)
    allowed = f"use all, last_n or every_n (n from 1 to {layers}), or a list of layer numbers from 0 to {layers - 1}"
    require(bool(numbers) and legal, key, chosen, allowed)
    return tuple(sorted(set(numbers)))


@dataclass
class RopeScaling:
    """How Llama 3.1 scales rotary wavelengths to go beyond the length that it was first trained on.

    Wavelengths above original_max_len / low_frequency become `factor` times as long, those below
    original_max_len / high_frequency stay as they are, and those between are interpolated.
    """

    factor: float = 8.0
    low_frequency: float = 1.0
    high_frequency: float = 4.0
    original_max_len: int = 8192


@dataclass
class TransformerConfig:
    """The sizes of a transformer, at least 1, and the choices in which the book, GPT-2 and Llama differ."""

    group: ClassVar[str] = "transformer"

    vocab_size: int = 4096
    max_len: int = 64  # positions: the longest sequence, BOS included
    d_model: int = 192
    layers: int = 4
    heads: int = 6
    d_ff: int = 768
    norm: str = "pre"  # where: pre, post, sandwich (Gemma 3) or parallel (GPT-NeoX)
    position: str = "learned"  # learned, sinusoidal or rope
    activation: str = "gelu"  # relu, gelu, gelu_tanh, swiglu or geglu_tanh
    dropout: float = 0.1  # on the embeddings and on what every sublayer adds (Vaswani et al. 2017, 5.4)
    norm_kind: str = "layer"  # layer or rms
    norm_eps: float = 1e-5
    kv_heads: int | None = None  # fewer than `heads` is grouped-query attention; None is `heads`
    bias: str = "all"  # which projections have one: all, qkv (Qwen2) or none (Llama)
    tied: bool = True  # the output projection is the token embedding
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rope_share: float = 1.0  # how much of each head is rotated (GPT-NeoX: a quarter)
    rope_thetas: list[float] | None = None  # of each layer, where they differ; 0 rotates nothing (SmolLM3)
    head_size: int | None = None  # of self-attention; None is d_model / heads
    qk_norm: bool = False  # whether queries and keys are normalised, each head by itself (Qwen3)
    scaled_embedding: bool = False  # by sqrt(d_model) (Gemma)

    @property
    def d_head(self) -> int:
        """The width of one self-attention head."""
        return self.d_model // self.heads if self.head_size is None else self.head_size

    @property
    def key_heads(self) -> int:
        """How many heads of keys and values self-attention has."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def least_parameters(self) -> int:
        """The numbers in its embeddings, positions and matrices, without biases, norms and an output projection."""
        positions = self.max_len * (self.d_head if self.position == "rope" else self.d_model)
        attention = 2 * self.d_model * self.d_head * (self.heads + self.key_heads)
        return self.vocab_size * self.d_model + positions + self.layers * (attention + 2 * self.d_model * self.d_ff)

    @property
    def described(self) -> str:
        """The sizes that decide how many parameters it has, as a user types them."""
        names = ["vocab_size", "max_len", "d_model", "layers", "d_ff"]
        names += ["heads", "head_size"] if self.head_size is not None else []
        return f"{self.group} ({', '.join(f'{name}={getattr(self, name)}' for name in names)})"

    def check(self) -> None:
        """Raise ConfigError, naming the key, unless such a transformer can be built."""
        group = self.group
        require_counts(group, vocab_size=self.vocab_size, max_len=self.max_len, d_model=self.d_model)
        require_counts(group, layers=self.layers, heads=self.heads, kv_heads=self.key_heads, d_ff=self.d_ff)
        require(self.layers <= MOST_LAYERS, f"{group}.layers", self.layers, f"use at most {MOST_LAYERS}")
        require_choice(f"{group}.norm", self.norm, NORMS)
        require_choice(f"{group}.norm_kind", self.norm_kind, NORM_KINDS)
        require_choice(f"{group}.position", self.position, POSITIONS)
        require_choice(f"{group}.activation", self.activation, ACTIVATIONS)
        require_choice(f"{group}.bias", self.bias, BIASES)
        require(0.0 <= self.dropout < 1.0, f"{group}.dropout", self.dropout, "use 0 or more and less than 1")
        require(self.norm_eps > 0.0, f"{group}.norm_eps", self.norm_eps, "use a number above 0")
        require(self.rope_theta > 0.0, f"{group}.rope_theta", self.rope_theta, "use a number above 0")
        require(
            0.0 < self.rope_share <= 1.0, f"{group}.rope_share", self.rope_share, "use a number from 0 (excluded) to 1"
        )
        thetas = self.rope_thetas
        require(thetas is None or len(thetas) == self.layers, f"{group}.rope_thetas", thetas, "name one for each layer")
        require(self.head_size is None or self.head_size >= 1, f"{group}.head_size", self.head_size, "use at least 1")
        for name, whole in (("heads", "d_model"), ("kv_heads", "heads")):
            if name == "heads" and self.head_size is not None:
                continue
            part, total = self.key_heads if name == "kv_heads" else self.heads, int(getattr(self, whole))
            if total % part:
                divisors = [n for n in range(1, min(total, 16) + 1) if total % n == 0]
                raise ConfigError(f"{group}.{name}={part} does not divide {whole}={total} (use {_choices(divisors)})")
        even = {"rope": ("d_model / heads", self.d_head), "sinusoidal": ("d_model", self.d_model)}
        name, width = even.get(self.position, ("", 0))
        require(width % 2 == 0, f"{group}.position", self.position, f"{name} has to be even, but is {width}")


@dataclass
class EncoderConfig(TransformerConfig):
    """A transformer encoder."""

    group: ClassVar[str] = "encoder"


@dataclass
class DecoderConfig(TransformerConfig):
    """A transformer decoder, locking or not."""

    group: ClassVar[str] = "decoder"


@dataclass
class HostedConfig:
    """What has to be known of a language model of transformers that is kept as it is."""

    architecture: str  # its class
    vocab_size: int
    max_len: int
    d_model: int
    layers: int
    norm_kind: str = "layer"  # of the input of cross-attention: layer or rms, as inside the model
    norm_eps: float = 1e-5
    dropout: float = 0.0  # the model's own is off


@dataclass
class CrossAttentionConfig:
    """The cross-attention that is attached to a locked decoder.

    d_q, d_k and d_v are sizes of one head. All sizes are at least 1. They have no defaults here; those of the command
    line are in conf/cross_attention.
    """

    heads: int
    d_q: int
    d_k: int
    d_v: int
    unlock: str = "zero_output"  # how it starts, see `lockdec.transformer.gates`
    layers: Any = "all"  # all, last_n (the last n), every_n (the last of each n), or a list of numbers from 0
    dropout: float = 0.0  # on what cross-attention adds
    bias: bool = False  # on its four projections

    def check(self) -> None:
        """Raise ConfigError, naming the key, unless such cross-attention can be attached to some decoder."""
        group = "cross_attention"
        require_counts(group, heads=self.heads, d_k=self.d_k, d_q=self.d_q, d_v=self.d_v)
        require_choice(f"{group}.unlock", self.unlock, UNLOCKS)
        require(0.0 <= self.dropout < 1.0, f"{group}.dropout", self.dropout, "use 0 or more and less than 1")

    def least_parameters(self, d_model: int, encoder_dim: int) -> int:
        """The weights of its four projections in one layer, without biases, the bilinear map and a gate."""
        return self.heads * (d_model * (self.d_q + self.d_v) + encoder_dim * (self.d_k + self.d_v))

    @property
    def described(self) -> str:
        """The sizes that decide how many parameters it has, as a user types them."""
        return f"cross_attention (heads={self.heads}, d_q={self.d_q}, d_k={self.d_k}, d_v={self.d_v})"

    def layer_numbers(self, layers: int) -> tuple[int, ...]:
        """Which of a decoder's layers get cross-attention; ConfigError if none or no such layer."""
        return layer_numbers("cross_attention.layers", self.layers, layers)


@dataclass
class GenerationConfig:
    """How sequences are generated."""

    group: ClassVar[str] = "generation"

    strategy: str = "greedy"  # greedy, beam, nucleus or top_k
    max_new_tokens: int = 24  # the end token included
    min_new_tokens: int = 0  # before the end token may come
    beams: int = 4  # beam: how many unfinished sequences are kept
    length_penalty: float = 1.0  # beam: the score is log-probability / length ** length_penalty
    early_stopping: bool = False  # beam: stop as soon as `beams` sequences are finished
    top_p: float = 0.9  # nucleus: draw from the fewest tokens with this probability together
    top_k: int = 50  # top_k: draw from this many tokens
    temperature: float = 1.0  # nucleus and top_k: below 1 is more cautious
    repetition_penalty: float = 1.0  # above 1 makes tokens of the sequence so far less likely (Keskar et al. 2019)
    no_repeat_ngram: int = 0  # no sequence of this many tokens occurs twice; 0 allows all

    def check(self) -> None:
        """Raise ConfigError, naming the key, unless sequences can be generated so."""
        group = self.group
        require_choice(f"{group}.strategy", self.strategy, STRATEGIES)
        require_counts(group, max_new_tokens=self.max_new_tokens, beams=self.beams, top_k=self.top_k)
        require(self.beams <= MOST_SEQUENCES, f"{group}.beams", self.beams, f"at most {MOST_SEQUENCES}")
        least, most = self.min_new_tokens, self.max_new_tokens
        require(0 <= least <= most, f"{group}.min_new_tokens", least, f"use 0 to max_new_tokens={most}")
        require(self.no_repeat_ngram >= 0, f"{group}.no_repeat_ngram", self.no_repeat_ngram, "use 0 or more")
        require(0.0 < self.top_p <= 1.0, f"{group}.top_p", self.top_p, "use a number above 0 and at most 1")
        for name in ("temperature", "repetition_penalty"):
            require(getattr(self, name) > 0.0, f"{group}.{name}", getattr(self, name), "use a number above 0")
