"""The resampler equals its definition, and changes nothing before cross-attention learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lockdec.bridges.resampler import Resampler
from lockdec.errors import ConfigError
from lockdec.transformer.hosting import HostedDecoderModel
from lockdec.transformer.models import Encoded
from tests.bridges.kinds import bridged
from tests.transformer.test_hosting import FAMILIES, cross_attention, tokens
from tests.transformer.tiny_transformers import (
    ENCODER_DIM,
    close,
    cross_attention_config,
    encoded_batch,
    locking_model,
    shake,
    token_batch,
)


def by_definition(bridge: Resampler, states: Tensor) -> Tensor:
    """What one input's real states (s, d) become: Flamingo's appendix A.1.1, one head after the other."""
    weights: dict[str, Any] = bridge.state_dict()
    known, queries = states @ weights["project.weight"].T, weights["latents"]
    for number in range(bridge.layers):
        layer = {name.split(".", 2)[2]: w for name, w in weights.items() if name.startswith(f"stack.{number}.")}

        def normed(x: Tensor, name: str, layer: dict[str, Tensor] = layer) -> Tensor:
            return F.layer_norm(x, (bridge.width,), layer[f"{name}.weight"], layer[f"{name}.bias"])

        reading, heads = normed(queries, "queries_norm"), []
        keys = torch.cat((normed(known, "states_norm"), reading))
        q, k, v = (
            x @ layer[f"attention.{name}.weight"].T for name, x in (("query", reading), ("key", keys), ("value", keys))
        )
        for own in torch.arange(bridge.width).chunk(bridge.heads):
            scores = q[:, own] @ k[:, own].T / len(own) ** 0.5
            heads.append(scores.softmax(-1) @ v[:, own])
        queries = queries + torch.cat(heads, dim=1) @ layer["attention.output.weight"].T
        hidden = F.gelu(normed(queries, "feed_forward.0") @ layer["feed_forward.1.weight"].T)
        queries = queries + hidden @ layer["feed_forward.3.weight"].T
    return F.layer_norm(queries, (bridge.width,), weights["norm.weight"], weights["norm.bias"])


def test_it_is_flamingos_perceiver_resampler() -> None:
    bridge, encoded = bridged("resampler").bridge, encoded_batch()
    assert isinstance(bridge, Resampler)
    found = bridge.states(encoded)
    assert found.states.shape == (3, 3, 8)
    assert found.mask.all()
    for row in range(3):
        close(found.states[row], by_definition(bridge, encoded.states[row][encoded.mask[row]]))


def test_unlocking_changes_nothing_and_an_input_without_states_never_does() -> None:
    model, tokens, encoded = locking_model(), token_batch(), encoded_batch()
    locked, bridge = model(tokens), Resampler(queries=3, width=8, heads=2)
    bridge.draw(model, ENCODER_DIM)
    model.attach_bridge(bridge)
    model.attach(cross_attention_config(layers=[1]), bridge.attended_dim)
    model.unlock()
    assert model(tokens, encoded).equal(locked)
    assert model.encoder_dim == ENCODER_DIM
    assert model.frozen_layers == 1  # below cross-attention, nothing depends on the input
    prefix, trained = model.prefix(tokens, 1), bridged("resampler")
    close(model.hidden(tokens, encoded, prefix), model.hidden(tokens, encoded))
    nothing = Encoded(encoded.states, torch.zeros_like(encoded.mask))
    found = trained(tokens, nothing)
    trained.lock()
    assert found.equal(trained(tokens))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 0}, r"^bridge\.queries=0: use at least 1$"),
        ({"layers": 10**9}, r"^bridge\.layers=1000000000: use at most 10000$"),
        ({"heads": 3}, r"^bridge\.heads=3 does not divide"),
    ],
)
def test_impossible_sizes_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Resampler(**settings)


def test_on_a_hosted_decoder_it_gives_cross_attention_its_states_and_locked_it_is_gone() -> None:
    host = FAMILIES["GPT-NeoX"]()
    expected = host(tokens(), use_cache=False).logits
    model, encoded = HostedDecoderModel(host).eval(), encoded_batch()
    bridge = Resampler(queries=3, width=8, layers=2, heads=2)
    bridge.draw(model, ENCODER_DIM)
    model.attach_bridge(bridge)
    model.attach(cross_attention(), 8)
    model.unlock()
    shake(model.decoder, seed=3)
    found, cache = model(tokens(), encoded), model.cache(encoded, max_len=9)
    close(model.prefill(tokens()[:, :4], cache), found[:, 3])
    close(model.step(tokens()[:, 4:5], cache), found[:, 4])
    model.lock()
    assert torch.equal(model(tokens()), expected)
    alone = HostedDecoderModel(host).eval()
    alone.attach("same", model.detach("default"))
    alone.unlock()
    close(found, alone(tokens(), bridge.states(encoded)))
    assert not torch.allclose(found, expected, atol=1e-3)
