"""Soft prompts equal their papers' definitions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lockdec.bridges.prefix import LinearPrefix, MLPPrefix, StatePrefix, pooled
from lockdec.errors import ConfigError, LockdecError
from lockdec.transformer.models import Encoded
from lockdec.transformer.positional import LearnedPositions
from tests.bridges.kinds import bridged
from tests.transformer.tiny_transformers import ENCODER_DIM, close, encoded_batch, locking_model, token_batch


def test_inputs_are_pooled_over_their_real_states() -> None:
    states = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert pooled(Encoded(states, mask)).tolist() == [[1.0, 2.0], [0.0, 0.0]]


def prompts(kind: str, encoded: Encoded) -> tuple[list[Tensor], Tensor]:
    """The weights of a bridge's map, and its embeddings for some inputs."""
    bridge = bridged(kind).bridge
    assert bridge is not None
    found = bridge.soft_prompt(encoded)
    assert found is not None
    return list(bridge.parameters()), found


def test_a_linear_prefix_is_one_affine_map_cut_into_embeddings() -> None:
    encoded = encoded_batch()
    (weight, bias), found = prompts("prefix_linear", encoded)
    assert found.shape == (3, 2, 12)
    for row in range(3):
        mean = encoded.states[row][encoded.mask[row]].mean(0)
        close(found[row].flatten(), weight @ mean + bias)
    (first, second, bias), found = prompts("prefix_linear of rank 3", encoded)
    assert (first.shape, second.shape) == ((3, ENCODER_DIM), (36, 3))
    close(found.flatten(1), pooled(encoded) @ (second @ first).T + bias)


def test_clipcap_has_one_hidden_layer_with_a_tanh() -> None:
    encoded = encoded_batch()
    (first, first_bias, second, second_bias), found = prompts("prefix_mlp", encoded)
    hidden = (pooled(encoded) @ first.T + first_bias).tanh()
    close(found.flatten(1), hidden @ second.T + second_bias)
    usual = MLPPrefix(length=3)
    usual.draw(locking_model(), ENCODER_DIM)
    assert isinstance(usual.map, nn.Sequential)
    assert usual.map[0].out_features == 3 * 12 // 2  # as its authors have it


def test_each_state_has_an_embedding_of_its_own_and_a_masked_one_zeros() -> None:
    encoded = encoded_batch()
    (first, first_bias, second, second_bias), found = prompts("prefix_states", encoded)
    assert found.shape == (3, 6, 12)
    hidden = nn.functional.gelu(encoded.states @ first.T + first_bias)
    states = encoded.states.shape[1]
    close(found[:, :states], (hidden @ second.T + second_bias) * encoded.mask[..., None])
    assert found[:, states:].eq(0).all()
    plain = StatePrefix(length=5)
    plain.draw(locking_model(), ENCODER_DIM)
    assert isinstance(plain.map, nn.Linear)  # LiMBeR
    few = StatePrefix(length=2)
    few.draw(locking_model(), ENCODER_DIM)
    with pytest.raises(LockdecError, match=rf"^bridge\.length=2: an input has {states} states; give as many"):
        few.soft_prompt(encoded)


def test_the_embeddings_are_read_as_if_they_were_those_of_tokens() -> None:
    """Where positions are relative, a prefix that repeats the vectors of two tokens gives what these tokens give."""
    model, tokens, encoded = bridged("prefix_linear", position="rope"), token_batch(), encoded_batch()
    bridge = model.bridge
    assert isinstance(bridge, LinearPrefix)
    assert isinstance(bridge.map, nn.Linear)
    with torch.no_grad():
        bridge.map.weight.zero_()
        bridge.map.bias.copy_(model.embedding.tokens.weight[[5, 8]].flatten())
    found = model(tokens, encoded)
    model.lock()
    both = torch.cat((torch.tensor([[5, 8]]).expand(3, -1), tokens), dim=1)
    close(found, model(both)[:, 2:])


@pytest.mark.parametrize("kind", ["prefix_linear", "prefix_mlp", "prefix_states", "lora"])
def test_tokens_keep_the_positions_of_pretraining(kind: str) -> None:
    """Those of a prefix are nobody's: a decoder that learned from texts that begin at position 0 still reads such."""
    model, tokens, encoded = bridged(kind, position="learned"), token_batch(), encoded_batch()
    found = model(tokens, encoded)
    assert isinstance(model.embedding.positions, LearnedPositions)
    with torch.no_grad():
        model.embedding.positions.weight[tokens.shape[1] :] = torch.nan
    assert model(tokens, encoded).equal(found)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LinearPrefix(length=0), r"^bridge\.length=0: use at least 1 embedding$"),
        (lambda: LinearPrefix(rank=0), r"^bridge\.rank=0: use at least 1, or null for a full matrix$"),
        (lambda: MLPPrefix(width=0), r"^bridge\.width=0: use at least 1, or null for half"),
        (lambda: StatePrefix(width=0), r"^bridge\.width=0: use at least 1, or null for a linear map$"),
    ],
)
def test_impossible_sizes_are_refused(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(ConfigError, match=message):
        build()
