"""What a bridge is by default, and how it is attached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from lockdec.errors import ConfigError, LockdecError
from lockdec.transformer.bridge import Bridge
from lockdec.transformer.models import Encoded
from lockdec.transformer.plugs import PluggableModel
from tests.transformer.tiny_transformers import (
    ENCODER_DIM,
    close,
    cross_attention_config,
    encoded_batch,
    force_open,
    locking_model,
    token_batch,
)


@dataclass(eq=False, kw_only=True)
class First(Bridge):
    """The first state, projected, as the only embedding."""

    kind: ClassVar[str] = "first"
    scale: float = 2.0

    @property
    def positions(self) -> int:
        return 1

    @property
    def attended(self) -> int:
        return self.encoder_dim

    def draw(self, decoder: PluggableModel, encoder_dim: int) -> None:
        self.encoder_dim = encoder_dim
        self.map = nn.Linear(encoder_dim, decoder.config.d_model)

    def soft_prompt(self, encoded: Encoded) -> Tensor:
        embeddings: Tensor = self.map(encoded.states[:, :1])
        return self.scale * embeddings


def test_its_settings_are_its_fields() -> None:
    bridge = First(scale=3.0)
    assert bridge.settings == {"scale": 3.0}
    assert (bridge.encoder_dim, list(bridge.parameters())) == (0, [])
    with pytest.raises(
        ConfigError, match=r"^bridge=first: a hosted decoder is kept as it is and takes cross-attention"
    ):
        bridge.require_hostable()


def test_it_works_beside_cross_attention_and_maps_leave_its_positions_out() -> None:
    model, tokens, encoded = locking_model(), token_batch(), encoded_batch()
    bridge = First()
    bridge.draw(model, ENCODER_DIM)
    model.attach_bridge(bridge)
    model.attach(cross_attention_config(layers=[1]), ENCODER_DIM)
    force_open(model)
    assert model.locked
    assert model.encoder_dim == ENCODER_DIM
    model.unlock()
    assert model.frozen_layers == 0  # the prompt changes what all layers compute
    assert model.attends
    names = {name.split(".")[0] for name in model.bridge_parameters()}
    assert names == {"bridge", "decoder"}
    [found] = model.attention_maps(tokens, encoded)
    assert found.weights.shape == (3, 2, 7, 5)
    assert found.cross_norm.shape == (3, 7)
    longer = torch.cat((tokens[:, :1], tokens), dim=1)
    [more] = model.attention_maps(longer[:, :7], encoded)
    assert not more.weights.equal(found.weights)
    close(found.weights.sum(-1), torch.ones(3, 2, 7))
    assert model(token_batch(length=16), encoded).shape[1] == 16  # tokens keep their positions
    with pytest.raises(LockdecError, match="longer than"):
        model(token_batch(length=17), encoded)


def test_attaching_another_replaces_it_and_locks() -> None:
    model = locking_model()
    for scale in (1.0, 2.0):
        bridge = First(scale=scale)
        bridge.draw(model, ENCODER_DIM)
        model.attach_bridge(bridge)
        assert model.locked
        model.unlock()
    assert model.bridge is bridge
    assert len(model.bridge_parameters()) == 2
