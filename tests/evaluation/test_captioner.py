"""Captions and losses of rows, whatever the batches; locking for a moment leaves the captioner as it was."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from lockdec.evaluation.captioner import Captioner, Read
from lockdec.pipeline.assembling import Assembly
from lockdec.stages.evaluate import Evaluate
from lockdec.transformer.models import CrossAttentionConfig


@pytest.fixture
def stage(assembled: Assembly) -> Evaluate:
    stage = assembled.stages["evaluate"]
    assert isinstance(stage, Evaluate)
    return stage


def of_batch(captioner: Captioner, size: int) -> Captioner:
    decode = replace(captioner.decode, batch_size=size)
    return Captioner(captioner.model, captioner.tokenizer, captioner.encoded, decode, captioner.device)


def texts(captioner: Captioner, rows: Sequence[int]) -> list[str]:
    return [caption.text for caption in captioner.captions(rows, "texts")]


def references(stage: Evaluate, rows: Sequence[int]) -> list[tuple[str, ...]]:
    return [tuple(stage.data.captions[row]) for row in rows]


def test_a_caption_depends_on_its_row_alone(captioner: Captioner, stage: Evaluate) -> None:
    rows = stage.data.splits["test"][:5]
    together = texts(captioner, rows)
    assert texts(of_batch(captioner, 2), rows[::-1]) == together[::-1]
    assert len(set(together)) > 1


def test_the_likelihood_of_a_caption_is_that_of_its_tokens(captioner: Captioner, stage: Evaluate) -> None:
    rows = stage.data.splits["test"][:5]
    for row, caption in zip(rows, captioner.captions(rows, "captions"), strict=True):
        tokens = torch.tensor([[captioner.tokenizer.special.bos, *caption.ids]])
        with torch.no_grad():
            logits = captioner.model(tokens[:, :-1], captioner.states([row]))
        assert caption.text == captioner.tokenizer.decode(caption.ids)
        assert caption.tokens == len(caption.ids)
        assert caption.log_prob == pytest.approx(
            -float(cross_entropy(logits[0], tokens[0, 1:], reduction="sum")), rel=1e-4
        )


@pytest.mark.parametrize("locked", [False, True])
def test_the_loss_is_a_mean_over_tokens_however_many_are_in_a_batch(
    locked: bool, captioner: Captioner, stage: Evaluate
) -> None:
    rows = stage.data.splits["test"][:5]
    in_twos = of_batch(captioner, 2)
    loss = in_twos.loss(rows, in_twos.read(references(stage, rows)), locked)
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
    before = texts(captioner, rows)
    assert captioner.locked_caption() == captioner.locked_caption()
    captioner.loss(rows, captioner.read(references(stage, rows)), locked=True)
    assert not captioner.model.locked
    assert texts(captioner, rows) == before


def width(captioner: Captioner) -> int:
    return int(captioner.states([0]).states.shape[-1])


@pytest.mark.parametrize("locked", [False, True])
def test_losses_share_what_is_below_cross_attention(locked: bool, captioner: Captioner, stage: Evaluate) -> None:
    rows = stage.data.splits["test"][:5]
    upper = copy.deepcopy(captioner)
    upper.model.attach(CrossAttentionConfig(heads=1, d_q=2, d_k=2, d_v=2, layers=[1], unlock="plain"), width(captioner))
    read = of_batch(upper, 2).read(references(stage, rows))
    assert {prefix.layers for _, prefix in read.batches if prefix is not None} == {1}
    apart = Read([(tokens, None) for tokens, _ in read.batches])
    assert of_batch(upper, 2).loss(rows, read, locked) == pytest.approx(of_batch(upper, 2).loss(rows, apart, locked))
    lower = of_batch(captioner, 2)  # attends in all layers, and has to run them all
    assert lower.loss(rows, read, locked) == pytest.approx(lower.loss(rows, apart, locked), abs=0)


def test_what_is_read_is_kept_up_to_a_limit(
    captioner: Captioner, stage: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    upper = of_batch(copy.deepcopy(captioner), 2)
    upper.model.attach(CrossAttentionConfig(heads=1, d_q=2, d_k=2, d_v=2, layers=[1]), width(captioner))
    several = references(stage, stage.data.splits["test"][:4])
    first = upper.read(several).batches[0][0].numel() * upper.model.config.d_model * 4
    monkeypatch.setattr("lockdec.evaluation.captioner.IN_MEMORY", first)
    assert [prefix is not None for _, prefix in upper.read(several).batches] == [True, False]
