"""Several encoders at once: the states of each as it has them alone, in channels of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from lockdec.encoders.encoded import EncodedSet
from lockdec.encoders.normalisation import Normalisation
from lockdec.encoders.together import PretrainedTogether, Together
from lockdec.encoders.vae import VAE, PretrainedVAE
from lockdec.errors import ConfigError, DataError
from lockdec.modules.captioning import perturbed
from lockdec.transformer.encoded import Encoded, present
from tests.encoders.kinds import KINDS, TEXTS, Given, autoencoder, drawings, mlm

PAIRS = KINDS["several at once"](Path()).inputs


def both() -> Together:
    return Together({"name": mlm(), "drawing": autoencoder(VAE)})


def test_each_part_has_its_own_states_and_channels() -> None:
    encoder, first, second = both(), autoencoder(VAE), mlm()
    assert (encoder.modality, encoder.names, encoder.apart) == ("several", ("drawing", "name"), (first.dim, second.dim))
    encoded = encoder.encode(PAIRS)
    drawn, named = first.encode(drawings()), second.encode(TEXTS)
    assert encoded.states.shape == (8, drawn.states.shape[1] + named.states.shape[1], first.dim + second.dim)
    for part, alone in zip(encoded.parted(encoder.apart), (drawn, named), strict=True):
        assert torch.equal(part.mask, alone.mask)
        torch.testing.assert_close(part.states[part.mask], alone.states[alone.mask])
    assert not encoded.states[~encoded.mask].any()
    own = present(encoded.states, encoder.apart)
    counts = [first.dim] * int(drawn.mask.sum()) + [second.dim] * int(named.mask.sum())
    assert sorted(own[encoded.mask].sum(1).tolist()) == sorted(counts)


def test_one_projection_of_such_states_is_one_of_each_memory() -> None:
    encoder, project = both(), nn.Linear(both().dim, 5, bias=False)
    encoded = encoder.encode(PAIRS[:2])
    blocks = torch.split(project.weight, list(encoder.apart), dim=1)
    for part, block in zip(encoded.parted(encoder.apart), blocks, strict=True):
        for row in range(2):
            real = part.states[row][part.mask[row]]
            found = project(encoded.states[row])
            for state in real @ block.T:
                assert torch.isclose(found, state, atol=1e-4).all(1).any()


def test_noise_reaches_only_the_channels_of_a_state() -> None:
    torch.manual_seed(0)
    encoder = both()
    encoded = encoder.encode(PAIRS[:3])
    noisy = perturbed(encoded, 0.5, 0.0, encoder.apart)
    own = present(encoded.states, encoder.apart)
    assert torch.equal(noisy.states[~own], encoded.states[~own])
    assert (noisy.states[own] != encoded.states[own]).all()
    assert not perturbed(encoded, 0.5, 0.0).states[~own].eq(0).any()


def test_the_encoded_set_normalises_each_part_by_its_own_states(tmp_path: Path) -> None:
    kinds = ["whiten", "none", "standardise", "standardise"]
    stored = EncodedSet.write(tmp_path, both(), Given(PAIRS, "several"), kinds, dtype="float32")
    (_, first), (_, second) = stored.normalisation.parts
    drawn, named = autoencoder(VAE).encode(drawings()[:4]), mlm().encode(TEXTS[:4])
    states = drawn.states[drawn.mask]
    torch.testing.assert_close(first(states), Normalisation.fit(["whiten", "none"], [states], [6, 5])(states))
    states = named.states[named.mask]
    torch.testing.assert_close(second(states), Normalisation.fit("standardise", [states], [16, 16])(states))
    again = EncodedSet.open(tmp_path)
    assert again.normalisation.alike(stored.normalisation)
    assert (again.normalisation.apart, again.normalisation.dim) == (both().apart, both().dim)
    some = again.batch([0, 5])
    for part, alone in zip(some.parted(both().apart), (drawn, named), strict=True):
        assert part.states.shape[2] == alone.states.shape[2]
        assert part.mask[0].sum() == alone.mask[0].sum()


def test_two_encoders_may_read_the_same_picture() -> None:
    encoder = Together({"a": autoencoder(VAE), "b": autoencoder(VAE, seed=1, channels=4)})
    assert encoder.modality == "image"
    first, second = encoder.encode(drawings()[:2]).parted(encoder.apart)
    assert (first.states.shape[2], second.states.shape[2]) == (11, 9)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^encoder\.parts=\['a'\]: name two encoders or more"):
        Together({"a": mlm()})
    with pytest.raises(DataError, match="the encoder 'name' reads text, and the example has image"):
        both().encode([{"image": Image.new("RGB", (4, 4))}])
    with pytest.raises(ConfigError, match="one of them has to be pretrained in this pipeline, and 0 are"):
        PretrainedTogether({"a": mlm(), "b": mlm()})


def test_one_of_them_may_be_pretrained_in_the_pipeline() -> None:
    waiting = PretrainedTogether({"a": PretrainedVAE(position=True), "b": autoencoder(VAE)})
    assert (waiting.stage, waiting.modality) == ("pretrain_vae", "image")


def test_a_state_without_any_value_is_of_no_part() -> None:
    states = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]]])
    first, second = Encoded(states, torch.ones(1, 3, dtype=torch.bool)).parted([2, 1])
    assert (first.states.tolist(), first.mask.tolist()) == ([[[1.0, 0.0]]], [[True]])
    assert (second.states.tolist(), second.mask.tolist()) == ([[[2.0]]], [[True]])


def test_several_that_are_a_part_themselves_read_the_whole_example() -> None:
    encoder = Together({"first": both(), "second": autoencoder(VAE)})
    inner, outer = encoder.encode(PAIRS[:2]).parted(encoder.apart)
    for part, alone in ((inner, both().encode(PAIRS[:2])), (outer, autoencoder(VAE).encode(drawings()[:2]))):
        torch.testing.assert_close(part.states[part.mask], alone.states[alone.mask])
    with pytest.raises(DataError, match="the encoder 'drawing' reads image, and the example has nothing"):
        encoder.encode([{}])
