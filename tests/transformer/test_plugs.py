"""Several plugs on one decoder: each as if it were alone, and the GPT as if there were none."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from lockdec.encoders.together import side_by_side
from lockdec.errors import LockdecError
from lockdec.transformer.configuration import CrossAttentionConfig
from lockdec.transformer.layers import LockingDecoderLayer
from lockdec.transformer.models import Encoded, LockingDecoderModel, Plug, PlugBatch, PlugRows
from tests.transformer.tiny_transformers import (
    ENCODER_DIM,
    cross_attention_config,
    decoder_config,
    locking_model,
    make_talkative,
    shake,
    token_batch,
)

MUSIC_DIM = 7
IDS: dict[str, Any] = {"bos_id": 1, "eos_id": 2, "pad_id": 0}
STRATEGIES: list[dict[str, Any]] = [
    {"strategy": "greedy"},
    {"strategy": "beam", "beams": 3},
    {"strategy": "greedy", "prompt": [5, 6]},
]


def music_config(**changes: Any) -> CrossAttentionConfig:
    """Of other sizes and in other layers than that of the drawings."""
    return CrossAttentionConfig(**{"heads": 1, "d_q": 3, "d_k": 5, "d_v": 2, "unlock": "tanh_gate", **changes})


def decoder(**changes: Any) -> LockingDecoderModel:
    """With two plugs, as if long trained: `drawings`, and `music`, which is in use and unlocked."""
    model = locking_model(**changes)
    for seed, (name, config, width) in enumerate(
        (
            ("drawings", cross_attention_config(bias=True), ENCODER_DIM),
            ("music", music_config(layers="last_1", bias=True), MUSIC_DIM),
        )
    ):
        model.attach(name, config, width)
        for layer in model.decoder.layers:
            assert isinstance(layer, LockingDecoderLayer)
            shake(layer.cross_attention, seed)
    model.unlock()
    return model


def encoded(rows: int, width: int, seed: int = 0) -> Encoded:
    """Rows of three states, of which the first has two."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(rows, 3, dtype=torch.bool)
    mask[0, 2] = False
    return Encoded(torch.randn(rows, 3, width, generator=generator), mask)


def mixed(tokens: Tensor) -> PlugBatch:
    """Rows 0 and 2 are drawings, row 1 is music, and all others are nothing."""
    return PlugBatch(
        len(tokens),
        (
            PlugRows("drawings", torch.tensor([2, 0]), encoded(2, ENCODER_DIM)),
            PlugRows("music", torch.tensor([1]), encoded(1, MUSIC_DIM)),
        ),
    )


def of_music(rows: list[int], inputs: int) -> PlugBatch:
    return PlugBatch(3, (PlugRows("music", torch.tensor(rows), encoded(inputs, MUSIC_DIM)),))


def alone(model: LockingDecoderModel, run: Any) -> list[Tensor]:
    """What `run` gives for drawings, for music, and for a locked decoder: each by its own plug."""
    found = []
    for name, states in (("drawings", encoded(2, ENCODER_DIM)), ("music", encoded(1, MUSIC_DIM))):
        model.use(name)
        found.append(run(states))
    model.lock()
    found.append(run(encoded(1, MUSIC_DIM)))
    model.unlock()
    return found


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_rows_of_different_plugs_equal_each_alone(norm: str) -> None:
    model = decoder(norm=norm)
    tokens = torch.cat([token_batch(), token_batch()])[:4]
    together = model(tokens, mixed(tokens))
    for number, (name, rows) in enumerate((("drawings", [2, 0]), ("music", [1]))):
        model.use(name)
        states = encoded(2, ENCODER_DIM) if number == 0 else encoded(1, MUSIC_DIM)
        torch.testing.assert_close(together[rows], model(tokens[rows], states), rtol=1e-5, atol=1e-5)
    model.lock()
    torch.testing.assert_close(together[3:], model(tokens[3:]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", STRATEGIES, ids=str)
def test_sequences_of_different_plugs_equal_each_alone(options: dict[str, Any]) -> None:
    """Sequences end at different steps, and rows that are finished leave the batch."""
    model = decoder()
    assert isinstance(model.decoder.norm, torch.nn.LayerNorm)
    make_talkative(model.embedding.tokens.weight, model.decoder.norm, eos=2, seed=38)
    drawings, music, nothing = alone(
        model, lambda states: model.generate(states, max_new_tokens=8, no_repeat_ngram=1, **IDS, **options)
    )
    batch = mixed(torch.zeros(4, 1))
    found = model.generate(batch, max_new_tokens=8, no_repeat_ngram=1, **IDS, **options)
    wanted = [drawings[1], music[0], drawings[0], nothing[0]]
    for row, sequence in zip(found, wanted, strict=True):
        longest = min(len(row), len(sequence))
        assert row[:longest].tolist() == sequence[:longest].tolist()
        assert not row[longest:].any()
        assert not sequence[longest:].any()
    assert len({tuple(row.tolist()) for row in found}) > 2


def test_plugs_of_one_row_are_summed() -> None:
    """In a decoder of one layer before its norm, what two plugs add is what each adds."""
    model = LockingDecoderModel(decoder_config(layers=1, norm="pre")).eval()
    shake(model)
    for seed, name in enumerate(("a", "b")):
        model.attach(name, cross_attention_config(), ENCODER_DIM)
        model.unlock()
        first = model.decoder.layers[0]
        assert isinstance(first, LockingDecoderLayer)
        shake(first.cross_attention, seed)
    tokens, states = token_batch()[:1], encoded(1, ENCODER_DIM)
    row = torch.tensor([0])
    layer = model.decoder.layers[0]
    assert isinstance(layer, LockingDecoderLayer)
    x = model.prefix(tokens, 0).hidden

    def added(*plugs: str) -> Tensor:
        parts = tuple(PlugRows(plug, row, states) for plug in plugs)
        query = layer.cross_attention_norm.norm(x)
        out: Tensor = layer.cross_attention(query, layer.remember(PlugBatch(1, parts)))
        return out

    torch.testing.assert_close(added("a", "b"), added("a") + added("b"))
    assert not torch.allclose(added("a"), added("b"))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_several_plugs_in_use_read_the_states_of_all_side_by_side(norm: str) -> None:
    model, tokens = decoder(norm=norm), token_batch()
    rows = len(tokens)
    drawings, music = encoded(rows, ENCODER_DIM, 1), encoded(rows, MUSIC_DIM, 2)
    both = side_by_side([drawings, music])
    model.use("drawings", "music")
    assert (model.apart, model.encoder_dim) == ((ENCODER_DIM, MUSIC_DIM), ENCODER_DIM + MUSIC_DIM)
    assert (model.attends, model.frozen_layers, model.locked) == (False, 0, False)
    every = torch.arange(rows)
    parts = PlugBatch(rows, (PlugRows("drawings", every, drawings), PlugRows("music", every, music)))
    found = model(tokens, both)
    torch.testing.assert_close(found, model(tokens, parts), rtol=1e-5, atol=1e-5)
    for options in STRATEGIES:
        sequences = [model.generate(given, max_new_tokens=6, **IDS, **options) for given in (both, parts)]
        assert torch.equal(*sequences)
    counts = []
    for name, alone in (("drawings", drawings), ("music", music)):
        model.use(name)
        assert not torch.allclose(model(tokens, alone), found, atol=1e-3)
        counts.append(sum(weight.numel() for weight in model.cross_attention_parameters().values()))
        assert model.plug_parameters == counts[-1]
    model.use("drawings", "music")
    assert model.plug_parameters == sum(counts)
    assert torch.equal(model(tokens, both), found)
    model.lock()
    locked = model(tokens)
    model.unlock()
    model.detach("music")
    assert (model.in_use, model.locked) == ((), True)
    assert torch.equal(model(tokens), locked)


def test_locked_is_the_gpt_bit_for_bit_whatever_is_attached() -> None:
    model, tokens = decoder(), token_batch()
    bare = LockingDecoderModel(decoder_config()).eval()
    bare.load_state_dict({name: value for name, value in model.state_dict().items() if ".cross_attention." not in name})
    for name in ("drawings", "music"):
        model.use(name)
        model.lock()
        assert torch.equal(model(tokens), bare(tokens))


def test_unplugging_and_plugging_again_is_bitwise_the_same() -> None:
    model, tokens = decoder(), token_batch()
    states = encoded(len(tokens), MUSIC_DIM)
    before = model(tokens, states)
    plug = model.detach("music")
    assert (model.locked, model.plug, list(model.plugs)) == (True, None, ["drawings"])
    assert not model.cross_attention_parameters()
    model.attach("again", plug)
    model.unlock()
    assert torch.equal(model(tokens, states), before)
    model.use("drawings")
    model.use("again")
    assert torch.equal(model(tokens, states), before)
    other = LockingDecoderModel(decoder_config()).eval()
    other.load_state_dict({name: value for name, value in model.state_dict().items() if "cross_attention." not in name})
    other.attach("there", copy.deepcopy(model.detach("again")))
    other.unlock()
    assert torch.equal(other(tokens, states), before)


def test_only_the_plug_in_use_is_trained_and_saved() -> None:
    model = decoder()
    waiting = {id(attachment.attention.query.weight) for attachment in model.decoder.waiting()}
    assert waiting
    assert not waiting & {id(parameter) for parameter in model.parameters()}
    music = set(model.state_dict())
    model.use("drawings")
    assert not model.locked
    assert music != set(model.state_dict())
    assert model.encoder_dim == ENCODER_DIM


def test_plugs_that_wait_move_with_the_model() -> None:
    model = decoder().double()
    model.use("drawings")
    tokens = token_batch()
    states = encoded(len(tokens), ENCODER_DIM)
    assert model(tokens, Encoded(states.states.double(), states.mask)).dtype == torch.float64


def test_a_copy_has_plugs_of_its_own() -> None:
    model = decoder()
    twin = copy.deepcopy(model)
    twin.use("drawings")
    for parameter in twin.cross_attention_parameters().values():
        parameter.data.zero_()
    model.use("drawings")
    assert any(parameter.any() for parameter in model.cross_attention_parameters().values())


def test_without_a_name_it_is_the_only_plug() -> None:
    model = decoder()
    model.attach(cross_attention_config(), 4)
    assert (list(model.plugs), model.encoder_dim, model.locked) == (["default"], 4, True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.attach("music", music_config(), 3), r"attach\('music'\): there is a plug of this name: detach it"),
        (lambda m: m.attach("", music_config(), 3), r"attach\(''\): it needs a name"),
        (lambda m: m.use("words"), r"there is no plug 'words' \(attached: 'drawings', 'music'\)"),
        (lambda m: m.detach("words"), "there is no plug 'words'"),
        (lambda m: m.use("music", "music"), r"use\('music', 'music'\): a plug is named twice"),
        (lambda m: m.use("music", "words"), "there is no plug 'words'"),
        (
            lambda m: m.attach("big", Plug(music_config(), 3, (None,) * 9, 48)),
            r"the plug is of a decoder of 9 layers and d_model=48, and this one has",
        ),
        (
            lambda m: m(token_batch(), PlugBatch(3, (PlugRows("words", torch.tensor([0]), encoded(1, 4)),))),
            "there is no plug 'words'",
        ),
        (
            lambda m: m(token_batch(), PlugBatch(3, (PlugRows("music", torch.tensor([0]), encoded(1, 4)),))),
            rf"states are 4 wide, but cross-attention was made for encoder_dim={MUSIC_DIM}",
        ),
        (
            lambda m: m(token_batch(), of_music([0, 1], 1)),
            "rows of the plug 'music': 2, with 1 encoded inputs; give one",
        ),
        (lambda m: m(token_batch(), of_music([7], 1)), "rows of the plug 'music': the batch has no row 7; it has 3"),
        (lambda m: m(token_batch(), of_music([-1], 1)), "the batch has no row -1"),
        (lambda m: m(token_batch(), PlugBatch(3, ())), "a PlugBatch without parts: give None where nothing is plugged"),
        (lambda m: m(token_batch(), of_music([1, 1], 2)), r"rows of the plug 'music': \[1, 1\] names a row twice"),
        (lambda m: m.attach("new", music_config()), "encoder_dim=None: use the width of the encoder's states"),
        (lambda m: m.attach("new", music_config(), 0), "encoder_dim=0: use the width"),
        (lambda m: m.attach(music_config(), 0), "encoder_dim=0: use the width"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(call: Any, message: str) -> None:
    model = decoder()
    with pytest.raises(LockdecError, match=message):
        call(model)
    assert (list(model.plugs), model.plug) == (["drawings", "music"], "music")
