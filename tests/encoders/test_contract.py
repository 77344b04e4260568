"""What every encoder promises, tested on every kind; and what the contract itself takes care of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from lockdec.data.captions import Input, Modality
from lockdec.encoders.contract import Encoded, Encoder, rehearse
from lockdec.encoders.encoded import EncodedSet
from lockdec.errors import ConfigError, LockdecError
from tests.encoders.array_encoder import Scaled
from tests.encoders.kinds import KINDS, Given, Kind


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kind:
    return KINDS[request.param](tmp_path_factory.mktemp("kind"))


def test_states_have_the_shape_and_type_that_is_promised(kind: Kind) -> None:
    encoded = kind.encoder.encode(kind.inputs)
    states, mask = encoded.states, encoded.mask
    assert (states.ndim, len(states), states.shape[2]) == (3, len(kind.inputs), kind.encoder.dim)
    assert (states.dtype, mask.dtype, mask.shape) == (torch.float32, torch.bool, states.shape[:2])
    assert states[mask].isfinite().all()
    assert mask[:, 0].all()
    assert not (mask[:, 1:] & ~mask[:, :-1]).any(), "padding comes last"
    assert mask.any(dim=0).all(), "padded to the longest, and no further"
    assert sum(kind.encoder.groups) == kind.encoder.dim
    assert kind.encoder.modality in get_args(Modality)


def test_inputs_that_differ_have_states_that_differ(kind: Kind) -> None:
    encoded = kind.encoder.encode(kind.inputs)
    means = [states[mask].mean(dim=0) for states, mask in zip(encoded.states, encoded.mask, strict=True)]
    assert len({tuple(mean.tolist()) for mean in means}) == len(kind.inputs)


def test_it_is_frozen_and_deterministic(kind: Kind) -> None:
    encoder, before = kind.encoder, kind.encoder.fingerprint
    first = encoder.encode(kind.inputs)
    torch.nn.ModuleList([encoder.requires_grad_(True)]).train()
    second = encoder.encode(kind.inputs)
    assert torch.equal(first.states, second.states)
    assert torch.equal(first.mask, second.mask)
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not first.states.requires_grad
    assert encoder.fingerprint == before


def test_an_input_has_the_same_states_in_any_batch(kind: Kind) -> None:
    together = kind.encoder.encode(kind.inputs)
    backwards = kind.encoder.encode(kind.inputs[::-1])
    scale = float(together.states[together.mask].abs().max())
    for row, item in enumerate(kind.inputs):
        alone = kind.encoder.encode([item])
        assert alone.mask.all()
        for batch, place in ((together, row), (backwards, len(kind.inputs) - 1 - row)):
            assert int(batch.mask[place].sum()) == alone.states.shape[1]
            states = batch.states[place][batch.mask[place]]
            torch.testing.assert_close(states, alone.states[0], rtol=1e-4, atol=1e-5 * scale)


def test_the_fingerprint_changes_with_preprocessing_choices_and_weights(kind: Kind) -> None:
    prints = [kind.encoder.fingerprint, *(other.fingerprint for other in kind.others)]
    assert len(set(prints)) == len(prints)


def test_the_fingerprint_changes_with_any_single_weight(kind: Kind) -> None:
    before = kind.encoder.fingerprint
    weights = [value for value in kind.encoder.state_dict().values() if value.is_floating_point()]
    for weight in {id(value): value for value in (weights[:1] + weights[-1:])}.values():
        kept, first = weight.clone(), (0,) * weight.ndim
        weight[first] = torch.nextafter(weight[first], torch.tensor(9.0))
        assert kind.encoder.fingerprint != before
        weight.copy_(kept)
    assert kind.encoder.fingerprint == before


def test_cached_equals_uncached(kind: Kind, tmp_path: Path) -> None:
    data = Given(kind.inputs, kind.encoder.modality)
    cached = EncodedSet.write(tmp_path, kind.encoder, data, "none", batch_size=3, dtype="float32")
    fresh, stored = kind.encoder.encode(kind.inputs), cached.batch(range(len(kind.inputs)))
    assert torch.equal(stored.mask, fresh.mask)
    scale = float(fresh.states[fresh.mask].abs().max())
    torch.testing.assert_close(stored.states[stored.mask], fresh.states[fresh.mask], rtol=1e-4, atol=1e-5 * scale)


def test_an_encoder_is_frozen_though_its_class_forgot_to() -> None:
    encoder = Scaled(3)
    assert encoder.frozen
    assert not encoder.training
    assert not encoder.dropout.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_an_encoder_stays_frozen_whatever_is_asked() -> None:
    encoder = Scaled(3).train().requires_grad_(True)
    holder = torch.nn.ModuleList([encoder]).train()
    assert holder.training
    assert not encoder.training
    assert not encoder.dropout.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_states_can_take_part_in_training() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    states = Scaled(3).encode([np.ones((2, 3), np.float32)]).states
    (gradient,) = torch.autograd.grad((states * weight).sum(), [weight])
    assert gradient.tolist() == [2, 2, 2]
    assert not states.requires_grad


def test_the_fingerprint_is_of_weights_and_settings() -> None:
    same = {Scaled(3).fingerprint, Scaled(3).fingerprint}
    others = {Scaled(3, weight=2.0).fingerprint, Scaled(3, offset=1.0).fingerprint}
    assert len(same) == 1
    assert len(same | others) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_fingerprint_sees_every_dtype(dtype: torch.dtype) -> None:
    assert Scaled(3).to(dtype).fingerprint != Scaled(3).fingerprint


def test_the_smallest_change_of_a_weight_changes_the_fingerprint() -> None:
    encoder = Scaled(3)
    before = encoder.fingerprint
    encoder.weight.copy_(torch.nextafter(encoder.weight, torch.tensor(2.0)))
    assert encoder.fingerprint != before


class Giving(Encoder):
    """Gives the same states for any inputs: what a class of somebody else might give."""

    modality: Modality = "text"
    dim = 3

    def __init__(self, states: Tensor, mask: Tensor) -> None:
        super().__init__()
        self.encoded = Encoded(torch.zeros(1, 1, 3), torch.ones(1, 1, dtype=torch.bool))
        for name, value in (("states", states), ("mask", mask)):  # the tests check what its constructor is given
            object.__setattr__(self.encoded, name, value)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {}

    def preprocess(self, inputs: Sequence[Input]) -> Sequence[Input]:
        return inputs

    def forward(self, batch: Sequence[Input]) -> Encoded:
        return self.encoded


REAL = torch.ones(2, 5, dtype=torch.bool)
NAN = torch.zeros(2, 5, 3).index_fill(0, torch.tensor(1), torch.nan)


@pytest.mark.parametrize(
    ("states", "mask", "problem"),
    [
        (torch.zeros(2, 5, 4), REAL, r"shape \(2, 5, 4\); `dim` says \(2 inputs, states, 3 channels\)"),
        (torch.zeros(1, 5, 3), REAL[:1], r"shape \(1, 5, 3\)"),
        (torch.zeros(2, 3), REAL, r"shape \(2, 3\)"),
        (torch.zeros(2, 5, 3, dtype=torch.int64), REAL, r"type torch.int64; they have to be floating-point"),
        (torch.zeros(2, 5, 3), REAL.float(), r"mask of type torch.float32 .* has to be torch.bool, \(2, 5\)"),
        (torch.zeros(2, 5, 3), REAL[:, :4], r"shape \(2, 4\); it has to be torch.bool, \(2, 5\)"),
        (torch.zeros(2, 5, 3), torch.tensor([[True], [False]]) & REAL, r"gave an input no state"),
        (NAN, REAL, r"input 'b': its encoder states are not finite"),
    ],
)
def test_a_rehearsal_says_what_breaks_the_contract(states: Tensor, mask: Tensor, problem: str) -> None:
    with pytest.raises(LockdecError, match=problem):
        rehearse(Giving(states, mask), {"a": "one", "b": "two"})


def test_a_rehearsal_takes_every_kind(kind: Kind) -> None:
    rehearse(kind.encoder, {str(number): given for number, given in enumerate(kind.inputs[:3])})


def test_padding_need_not_be_finite() -> None:
    rehearse(Giving(NAN[1:].index_fill(1, torch.tensor(0), 1.0), REAL[1:] & (torch.arange(5) < 1)), {"a": "one"})


class Partial(Scaled):
    """A user's class with attributes of any values; None leaves one out."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(3)
        for name, value in attributes.items():
            delattr(self, name) if value is None else setattr(self, name, value)


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"dim": None}, r"has no `dim`; it has to be the number of channels of a state$"),
        ({"dim": 2.5}, r"has dim=2\.5; it has to be the number of channels"),
        ({"dim": 0}, r"has dim=0; "),
        ({"modality": "picture"}, r"has modality='picture'; it has to be one of image, text, array, several$"),
        ({"rate": "16 kHz"}, r"has rate='16 kHz'; it has to be samples a second, or None"),
        ({"seconds": "all"}, r"has seconds='all'; it has to be how much of a sound"),
        ({"groups": (1, 1)}, r"has groups=\(1, 1\); it has to be numbers of channels that add up to `dim`, 3$"),
        ({"groups": 3}, r"has groups=3; "),
    ],
)
def test_what_the_contract_requires_of_a_class_is_said_in_a_line(attributes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"^encoder: Partial {problem}"):
        Partial(**attributes)


def test_a_class_that_is_no_whole_encoder_is_refused_in_a_line() -> None:
    """Without a modality, methods, the constructor of its parent or plain settings."""

    def made(**content: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            _ = type("Odd", (Encoder,), content)().fingerprint
        return str(caught.value)

    def start(self: Encoder) -> None:
        self.dim = 3

    whole = {name: getattr(Giving, name) for name in ("modality", "dim", "settings", "preprocess", "forward")}
    assert (
        made(forward=whole["forward"]) == "encoder: Odd does not define preprocess and settings, as an Encoder has to"
    )
    assert made(**{name: value for name, value in whole.items() if name != "modality"}).startswith(
        "encoder: Odd has no `modality`; it has to be one of image"
    )
    assert made(**whole, __init__=start) == "encoder: Odd.__init__ has to call super().__init__() first"
    odd: list[Any] = [lambda self: {}, property(lambda self: {"dtype": torch.float32}), property(lambda self: 3)]
    for settings in odd:
        assert made(**whole | {"settings": settings}).startswith(
            "encoder: Odd.settings has to be a property that gives a mapping of plain values"
        )


def test_an_error_within_a_property_is_that_error() -> None:
    class Mistyped(Scaled):
        @property
        def settings(self) -> Mapping[str, Any]:
            return {"size": self.sized}

    with pytest.raises(AttributeError, match="'Mistyped' object has no attribute 'sized'"):
        _ = Mistyped(3).fingerprint
    assert not hasattr(Scaled(3), "sized")
