"""A captioner saved and loaded again generates what it generated, and files that do not belong together are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lockdec.errors import StoreError
from lockdec.evaluation.stored import (
    CROSS_ATTENTION,
    CROSS_ATTENTION_WEIGHTS,
    load_captioner,
    load_decoder,
    save_bridge,
    save_decoder,
)
from lockdec.store import Artifact
from lockdec.store.tensors import load_tensors, save_tensors
from lockdec.transformer.models import LockingDecoderModel
from tests.transformer.tiny_transformers import (
    ENCODER_DIM,
    cross_attention_config,
    encoded_batch,
    locking_model,
    token_batch,
)


def artifact(folder: Path, stage: str) -> Artifact:
    return Artifact(folder, stage, "0" * 64, reused=False, metrics={}, config={}, parents={}, seconds=0.0)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[LockingDecoderModel, Artifact]:
    model = locking_model()
    save_decoder(model, tmp_path)
    model.attach(cross_attention_config(), ENCODER_DIM)
    with torch.no_grad():
        for weight in model.cross_attention_parameters().values():
            weight.normal_(generator=torch.Generator().manual_seed(5))
    model.unlock()
    save_bridge(model, tmp_path)
    return model, artifact(tmp_path, "finetune")


def test_a_loaded_captioner_gives_the_same_logits(saved: tuple[LockingDecoderModel, Artifact]) -> None:
    model, stored = saved
    tokens, encoded = token_batch(), encoded_batch()
    loaded = load_captioner(stored, stored)
    assert (loaded.locked, loaded.training) == (False, False)
    with torch.inference_mode():
        assert torch.equal(loaded(tokens, encoded), model(tokens, encoded))


def test_a_loaded_decoder_is_locked_and_gives_the_same_logits(saved: tuple[LockingDecoderModel, Artifact]) -> None:
    before = torch.get_rng_state()
    loaded = load_decoder(saved[1])
    assert torch.equal(torch.get_rng_state(), before), "weights were drawn that others take the place of"
    assert (loaded.locked, loaded.training) == (True, False)
    with torch.inference_mode():
        assert torch.equal(loaded(token_batch()), locking_model()(token_batch()))


def test_a_file_of_cross_attention_changes_no_weight_of_the_decoder(
    saved: tuple[LockingDecoderModel, Artifact],
) -> None:
    model, stored = saved
    path, name = stored.path(CROSS_ATTENTION_WEIGHTS), "decoder.layers.0.feed_forward.output.weight"
    weight = model.state_dict()[name]
    save_tensors(load_tensors(path) | {name: torch.zeros_like(weight)}, path)
    assert torch.equal(load_captioner(stored, stored).state_dict()[name], weight)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoder_dim": ENCODER_DIM + 1}, "not the weights of a LockingDecoder of the sizes beside it"),
        ({"d_v": 1}, "not the weights of a LockingDecoder of the sizes beside it"),
        ({"encoder_dim": "ten"}, "encoder_dim=ten is not a number of channels"),
    ],
)
def test_sizes_of_other_weights_are_refused(
    saved: tuple[LockingDecoderModel, Artifact], changes: dict[str, object], reason: str
) -> None:
    path = saved[1].path(CROSS_ATTENTION)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(StoreError, match=reason):
        load_captioner(saved[1], saved[1])
