"""Retrieved captions are those of the nearest inputs, never an input's own, and are read as tokens are."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from lockdec.bridges.retrieval import Retrieval
from lockdec.data.fewshot import support_set
from lockdec.encoders.encoded import EncodedSet
from lockdec.errors import ConfigError
from lockdec.evaluation.controls import nearest_rows
from lockdec.pipeline.assembling import Assembly
from lockdec.stages.finetune import Finetune
from lockdec.store import Artifact
from lockdec.transformer.models import Encoded
from tests.bridges.kinds import bridged
from tests.transformer.tiny_transformers import close, encoded_batch, locking_model, token_batch

KEYS = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]])
CAPTIONS = [[1, 5, 2], [1, 6, 2], [1, 7, 2], [1, 8, 9, 2]]


def remembering(length: int, captions: list[list[int]] | None = None, rows: list[int] | None = None) -> Retrieval:
    """A bridge that knows the captions above."""
    bridge = Retrieval(length=length)
    bridge.draw(locking_model(), 2)
    given = CAPTIONS if captions is None else captions
    bridge.remember(KEYS[: len(given)], given, list(range(10, 10 + len(given))) if rows is None else rows)
    return bridge


def states(*means: list[float]) -> Encoded:
    """Inputs of one state each."""
    return Encoded(torch.tensor(means).unsqueeze(1), torch.ones(len(means), 1, dtype=torch.bool))


def test_the_nearest_caption_comes_last_and_the_first_is_cut() -> None:
    found = remembering(8).examples(states([2.0, 0.1], [-1.0, 0.2]))
    assert found.tolist() == [[7, 2, 1, 6, 2, 1, 5, 2], [2, 1, 7, 2, 1, 8, 9, 2]]


def test_an_input_of_the_support_set_never_gets_a_caption_of_its_own() -> None:
    bridge = remembering(6, rows=[10, 10, 12, 13])  # the first two are of one input
    query = states([1.0, 0.0], [1.0, 0.0])
    assert bridge.examples(query).tolist() == [[1, 6, 2, 1, 5, 2]] * 2
    with bridge.leaving_out(torch.tensor([10, 12])):
        assert bridge.examples(query).tolist() == [[8, 9, 2, 1, 7, 2], [1, 6, 2, 1, 5, 2]]
    assert bridge.examples(query).tolist() == [[1, 6, 2, 1, 5, 2]] * 2


def test_few_captions_begin_anew() -> None:
    assert remembering(7, CAPTIONS[:2]).examples(states([1.0, 0.0])).tolist() == [[2, 1, 6, 2, 1, 5, 2]]


def test_examples_are_read_as_the_tokens_that_they_are() -> None:
    model, tokens, encoded = bridged("retrieval"), token_batch(), encoded_batch()
    assert isinstance(model.bridge, Retrieval)
    found, examples = model(tokens, encoded), model.bridge.examples(encoded)
    assert len(set(map(tuple, examples.tolist()))) > 1
    model.lock()
    close(found, model(torch.cat((examples, tokens), dim=1))[:, 4:])
    assert not model.bridge_parameters()


def test_the_nearest_are_those_of_the_control(made: Mapping[str, Artifact], assembled: Assembly) -> None:
    stage, encoded = assembled.stages["finetune"], EncodedSet.open(made["attach"].folder)
    assert isinstance(stage, Finetune)
    pairs = support_set(stage.data, 16, 0)
    known, rows = [pair.index for pair in pairs], list(stage.data.splits["test"])
    bridge = Retrieval(length=2)
    bridge.draw(locking_model(), encoded.dim)
    bridge.remember(encoded.pooled(known), [[1, 100 + number] for number in range(16)], known)
    nearest = bridge.examples(encoded.batch(rows))[:, 1] - 100
    assert nearest.tolist() == nearest_rows(encoded, rows, known)
    with bridge.leaving_out(torch.tensor(known)):
        assert not (bridge.examples(encoded.batch(known))[:, 1] == 100 + torch.arange(16)).any()


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^bridge\.length=0: use at least 1 position$"):
        Retrieval(length=0)
