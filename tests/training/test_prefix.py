"""What frozen layers make of a sequence is computed once, and read again as they would compute it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lockdec.data.tokenizer import pad
from lockdec.errors import StoreError
from lockdec.modules.losses import next_token_loss
from lockdec.store import writing
from lockdec.training import prefix as under_test
from lockdec.training.prefix import MAPPED, FrozenPrefix
from lockdec.transformer.fast.packing import MULTIPLE
from lockdec.transformer.models import LockingDecoderModel, Prefix
from tests.transformer.tiny_transformers import (
    ENCODER_DIM,
    cross_attention_config,
    encoded_batch,
    force_open,
    locking_model,
)

EOS = 2
LENGTHS = (4, 1, 9, 4, 0, 12, 9)
SEQUENCES = [[1, *range(3, 3 + length), EOS] for length in LENGTHS]
PROMPTED = [
    [1, 5, 6, 7, 8, *range(3 + length % 2, 3 + length), EOS] for length in (4, 1, 9, 4, 0, 10, 9)
]  # each begins with a prompt


def attending(layers: str, **changes: Any) -> LockingDecoderModel:
    """Four layers, of which some attend."""
    model = locking_model(layers=4, **changes)
    model.attach(cross_attention_config(layers=layers), ENCODER_DIM)
    force_open(model)
    model.unlock()
    model.freeze_decoder()
    return model


@pytest.mark.parametrize(("layers", "below"), [("all", 0), ("last_1", 3), ("every_2", 1), ([2], 2)])
def test_the_layers_below_the_lowest_cross_attention(layers: str, below: int) -> None:
    assert attending(layers).decoder.below_cross_attention == below
    assert locking_model().decoder.below_cross_attention == 0


@pytest.mark.parametrize("position", ["rope", "learned", "sinusoidal"])
@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "pre"},
        {"norm": "post"},
        {"norm": "parallel"},
        {"kv_heads": 1, "qk_norm": True, "norm_kind": "rms"},
    ],
    ids=lambda changes: " ".join(map(str, changes.values())),
)
@pytest.mark.parametrize("short", [256, 0], ids=["shared", "apart"])
def test_hidden_states_are_those_of_each_sequence_alone(
    position: str, changes: dict[str, Any], short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "_SHORT", short)
    model = attending("last_2", position=position, **changes)
    prefix = FrozenPrefix(model, PROMPTED, 2, Path("nowhere"))
    for row, sequence in enumerate(PROMPTED):
        with torch.no_grad():
            alone = model.prefix(torch.tensor([sequence[:-1]]), 2).hidden
        torch.testing.assert_close(prefix.batch([row]), alone, rtol=1e-4, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sampled_from(range(len(SEQUENCES))), min_size=1, max_size=5),
    st.integers(1, 3),
    st.sampled_from(["rope", "learned", "sinusoidal"]),
    st.sampled_from(["pre", "post"]),
    st.booleans(),
    st.sampled_from([SEQUENCES, PROMPTED]),
)
def test_loss_and_gradients_are_those_without_it(
    rows: list[int], upper: int, position: str, norm: str, pack: bool, sequences: list[list[int]]
) -> None:
    model = attending(f"last_{upper}", position=position, norm=norm)
    prefix = FrozenPrefix(model, sequences, 4 - upper, Path("nowhere"))
    tokens, encoded = pad([sequences[row] for row in rows]), encoded_batch(len(rows))
    found = []
    for known in (None, Prefix(prefix.batch(rows), prefix.layers)):
        model.zero_grad()
        loss, _ = next_token_loss(model, tokens, EOS, encoded, pack=pack, prefix=known)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [weight.grad for weight in model.cross_attention_parameters().values()]
        found.append([loss.detach(), *(gradient for gradient in gradients if gradient is not None)])
    for plain, quick in zip(*found, strict=True):
        torch.testing.assert_close(quick, plain, atol=1e-5, rtol=1e-4)
    maps = [
        model.attention_maps(tokens[:, :-1], encoded, known) for known in (None, Prefix(prefix.batch(rows), 4 - upper))
    ]
    for plain, quick in zip(*maps, strict=True):
        real = torch.arange(tokens.shape[1] - 1) < torch.tensor([[len(sequences[row]) - 1] for row in rows])
        torch.testing.assert_close(quick.cross_norm[real], plain.cross_norm[real], atol=1e-4, rtol=1e-4)


def test_nothing_is_computed_at_padding_and_a_prompt_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, positions = attending("last_2"), list[int]()
    first = model.decoder.layers[0].get_submodule("feed_forward")
    first.register_forward_pre_hook(lambda _, inputs: positions.append(inputs[0].shape[0] * inputs[0].shape[1]))
    FrozenPrefix(model, PROMPTED, 2, Path("nowhere"))
    beginning, rest = positions
    assert beginning == 4  # of five: something is left of the one without text
    others = sum(len(sequence) - 1 - beginning for sequence in PROMPTED)
    assert others <= rest < others + MULTIPLE
    longest = max(len(sequence) - 1 for sequence in PROMPTED) - beginning
    monkeypatch.setattr(under_test, "_TOKENS", longest * len(PROMPTED))  # what is shared does not count
    positions.clear()
    FrozenPrefix(model, PROMPTED, 2, Path("nowhere"))
    assert len(positions) == 2
    monkeypatch.setattr(under_test, "_TOKENS", 20)  # two or more of the shorter ones at a time
    positions.clear()
    FrozenPrefix(model, PROMPTED, 2, Path("nowhere"))
    assert max(positions) <= 20 + MULTIPLE
    assert len(positions) < 2 * len(PROMPTED)
    monkeypatch.setattr(under_test, "_WHOLE", 20)  # with what they share, each is alone
    positions.clear()
    FrozenPrefix(model, PROMPTED, 2, Path("nowhere"))
    assert len(positions) > 2 * 4
    monkeypatch.setattr(under_test, "_WHOLE", 10**6)
    monkeypatch.setattr(under_test, "_TOKENS", 12)
    positions.clear()
    FrozenPrefix(model, SEQUENCES, 2, Path("nowhere"))
    assert max(positions) <= 12 + MULTIPLE
    assert sum(positions) < sum(len(sequence) - 1 for sequence in SEQUENCES) + MULTIPLE * len(positions)


@pytest.mark.parametrize("sequences", [SEQUENCES, PROMPTED])
def test_it_computes_in_the_precision_of_the_steps(sequences: list[list[int]]) -> None:
    model, longest = attending("last_2"), sequences.index(max(sequences, key=len))
    tokens = torch.tensor([sequences[longest][:-1]])
    found = FrozenPrefix(model, sequences, 2, Path("nowhere"), "bf16-mixed").batch([longest])
    with torch.no_grad():
        plain = model.prefix(tokens, 2).hidden
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(found, model.prefix(tokens, 2).hidden, rtol=0, atol=1e-3)
    assert (found - plain).abs().max() > 1e-3


def test_a_large_one_is_mapped_from_a_file_that_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = attending("last_2")
    small = FrozenPrefix(model, SEQUENCES, 2, tmp_path)
    small.close()
    assert small.bytes == 4 * 12 * sum(len(sequence) - 1 for sequence in SEQUENCES)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(under_test, "IN_MEMORY", small.bytes - 1)
    large = FrozenPrefix(model, SEQUENCES, 2, tmp_path)
    assert (tmp_path / MAPPED).stat().st_size == large.bytes == small.bytes
    rows = [3, 5, 0]
    assert large.batch(rows).equal(small.batch(rows))
    large.close()
    assert list(tmp_path.iterdir()) == []
    FrozenPrefix(model, SEQUENCES, 2, tmp_path)
    writing.clear_partial(tmp_path)  # as the store does before a stage that was killed is made again
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "IN_MEMORY", 0)
    monkeypatch.setattr(writing, "free_bytes", lambda _: 10)
    with pytest.raises(StoreError, match=r"the hidden states of the frozen layers needs .* and 10 bytes are free"):
        FrozenPrefix(attending("last_2"), SEQUENCES, 2, tmp_path)
