"""Captions and losses of rows, whatever the batches; locking for a moment leaves the captioner as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from lockdec.evaluation.captioner import Captioner
from lockdec.pipeline.assembling import Assembly
from lockdec.stages.evaluate import Evaluate


@pytest.fixture
def stage(assembled: Assembly) -> Evaluate:
    stage = assembled.stages["evaluate"]
    assert isinstance(stage, Evaluate)
    return stage


def of_batch(captioner: Captioner, size: int) -> Captioner:
    decode = replace(captioner.decode, batch_size=size)
    return Captioner(captioner.model, captioner.tokenizer, captioner.encoded, decode, captioner.device)


def references(stage: Evaluate, rows: Sequence[int]) -> list[tuple[str, ...]]:
    return [tuple(stage.data.captions[row]) for row in rows]


def test_a_caption_depends_on_its_row_alone(captioner: Captioner, stage: Evaluate) -> None:
    rows = stage.data.splits["test"][:5]
    together = captioner.captions(rows, "together")
    assert of_batch(captioner, 2).captions(rows[::-1], "in twos") == together[::-1]
    assert len(set(together)) > 1


@pytest.mark.parametrize("locked", [False, True])
def test_the_loss_is_a_mean_over_tokens_however_many_are_in_a_batch(
    locked: bool, captioner: Captioner, stage: Evaluate
) -> None:
    rows = stage.data.splits["test"][:5]
    loss = of_batch(captioner, 2).loss(rows, references(stage, rows), locked)
    total, count = 0.0, 0
    captioner.model.lock() if locked else captioner.model.unlock()
    for row, texts in zip(rows, references(stage, rows), strict=True):
        tokens = captioner.tokenizer.batch([texts[0]], captioner.model.config.max_len)
        with torch.no_grad():
            logits = captioner.model(tokens[:, :-1], None if locked else captioner.states([row]))
        total += float(cross_entropy(logits[0], tokens[0, 1:], reduction="sum"))
        count += tokens.shape[1] - 1
    captioner.model.unlock()
    assert loss == pytest.approx(total / count, rel=1e-5)


def test_it_is_unlocked_again_after_what_it_says_locked(captioner: Captioner, stage: Evaluate) -> None:
    rows = stage.data.splits["test"][:4]
    before = captioner.captions(rows, "before")
    assert captioner.locked_caption() == captioner.locked_caption()
    captioner.loss(rows, references(stage, rows), locked=True)
    assert not captioner.model.locked
    assert captioner.captions(rows, "after") == before
