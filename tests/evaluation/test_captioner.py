"""Captions and losses of rows, whatever the batches; locking for a moment leaves the captioner as it was."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from lockdec.evaluation import captioner as under_test
from lockdec.evaluation.captioner import EncodedCaptioner, Read
from lockdec.pipeline.assembling import Assembly
from lockdec.stages.evaluate import Evaluate
from lockdec.training.prefix import MAPPED
from lockdec.transformer.models import CrossAttentionConfig, Encoded


@pytest.fixture
def stage(assembled: Assembly) -> Evaluate:
    stage = assembled.stages["evaluate"]
    assert isinstance(stage, Evaluate)
    return stage


def of_batch(captioner: EncodedCaptioner, size: int) -> EncodedCaptioner:
    decode = replace(captioner.decode, batch_size=size)
    return EncodedCaptioner(captioner.model, captioner.tokenizer, captioner.encoded, decode, captioner.device)


def texts(captioner: EncodedCaptioner, rows: Sequence[int]) -> list[str]:
    return [caption.text for caption in captioner.captions(rows, "texts")]


def references(stage: Evaluate, rows: Sequence[int]) -> list[tuple[str, ...]]:
    return [tuple(stage.data.captions[row]) for row in rows]


def test_a_caption_depends_on_its_row_alone(captioner: EncodedCaptioner, stage: Evaluate) -> None:
    rows = stage.data.splits["test"][:5]
    together = texts(captioner, rows)
    assert texts(of_batch(captioner, 2), rows[::-1]) == together[::-1]
    assert len(set(together)) > 1


def test_the_likelihood_of_a_caption_is_that_of_its_tokens(captioner: EncodedCaptioner, stage: Evaluate) -> None:
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
    locked: bool, captioner: EncodedCaptioner, stage: Evaluate, tmp_path: Path
) -> None:
    rows = stage.data.splits["test"][:5]
    in_twos = of_batch(captioner, 2)
    loss = in_twos.loss(rows, in_twos.read(references(stage, rows), tmp_path), locked)
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


def test_it_is_unlocked_again_after_what_it_says_locked(
    captioner: EncodedCaptioner, stage: Evaluate, tmp_path: Path
) -> None:
    rows = stage.data.splits["test"][:4]
    before = texts(captioner, rows)
    assert captioner.locked_caption() == captioner.locked_caption()
    captioner.loss(rows, captioner.read(references(stage, rows), tmp_path), locked=True)
    assert not captioner.model.locked
    assert texts(captioner, rows) == before


def width(captioner: EncodedCaptioner) -> int:
    return int(captioner.states([0]).states.shape[-1])


@pytest.mark.parametrize("locked", [False, True])
def test_losses_share_what_is_below_cross_attention(
    locked: bool, captioner: EncodedCaptioner, stage: Evaluate, tmp_path: Path
) -> None:
    rows = stage.data.splits["test"][:5]
    upper = copy.deepcopy(captioner)
    upper.model.attach(CrossAttentionConfig(heads=1, d_q=2, d_k=2, d_v=2, layers=[1], unlock="plain"), width(captioner))
    read = of_batch(upper, 2).read(references(stage, rows), tmp_path)
    assert read.prefix is not None
    assert read.prefix.layers == 1
    apart = Read(read.sequences, None)
    assert of_batch(upper, 2).loss(rows, read, locked) == pytest.approx(of_batch(upper, 2).loss(rows, apart, locked))
    lower = of_batch(captioner, 2)  # attends in all layers, and has to run them all
    assert lower.loss(rows, read, locked) == pytest.approx(lower.loss(rows, apart, locked), abs=0)


def test_what_is_read_and_does_not_fit_is_in_a_file_until_it_is_closed(
    captioner: EncodedCaptioner, stage: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upper = copy.deepcopy(captioner)
    upper.model.attach(CrossAttentionConfig(heads=1, d_q=2, d_k=2, d_v=2, layers=[1]), width(captioner))
    rows = stage.data.splits["test"][:4]
    small = upper.read(references(stage, rows), tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("lockdec.training.prefix.IN_MEMORY", 0)
    large = upper.read(references(stage, rows), tmp_path)
    assert upper.loss(rows, large) == upper.loss(rows, small)
    assert [path.name for path in tmp_path.iterdir()] == [MAPPED]
    large.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("strategy", "beams", "cache", "logits", "together"),
    [
        ("greedy", 4, 10**9, 10**9, [8, 2]),  # four batches of two, and what is left
        ("greedy", 4, 0, 10**9, [2, 2, 2, 2, 2]),
        ("greedy", 4, 10**9, 0, [2, 2, 2, 2, 2]),
        ("beam", 2, 10**9, 10**9, [8, 2]),
        ("nucleus", 4, 10**9, 10**9, [2, 2, 2, 2, 2]),  # whose draws depend on the batches
        ("mbr", 4, 10**9, 10**9, [2, 2, 2, 2, 2]),
    ],
)
def test_more_inputs_are_captioned_together_where_memory_suffices(
    strategy: str,
    beams: int,
    cache: int,
    logits: int,
    together: list[int],
    captioner: EncodedCaptioner,
    stage: Evaluate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes, rows = list[int](), stage.data.splits["test"][:10]
    decode = replace(captioner.decode, batch_size=2, strategy=strategy, beams=beams, candidates=2)
    here = EncodedCaptioner(captioner.model, captioner.tokenizer, captioner.encoded, decode, captioner.device)

    def states(some: Sequence[int]) -> Encoded:
        sizes.append(len(some))
        return captioner.states(some)

    monkeypatch.setattr(here, "states", states)
    monkeypatch.setattr(under_test, "CACHE", cache)
    monkeypatch.setattr(under_test, "LOGITS", logits)
    assert len(texts(here, rows)) == 10
    assert [size for size in sizes if size > 1] == together  # one alone shows how much memory it takes
    positions, two = len(here.tokenizer.prompt_tokens) + decode.max_new_tokens, captioner.states(rows[:2])
    made = here.model.cache(two, positions)
    here.model.prefill(torch.tensor([[1] * positions]), made)
    held = [part for past in made.past for part in (past._keys, past._values)]
    held += [part for memory in made.memories for part in (memory.key, memory.value)]
    one = captioner.states(rows[:1])
    assert here.model.cache_bytes(two, positions) == sum(part.nbytes for part in held)
    assert 2 * (here.model.cache_bytes(one, positions) or 0) == here.model.cache_bytes(two, positions)


@pytest.mark.parametrize(("spare", "together"), [(0, 3), (-1, 2)])
@pytest.mark.parametrize("limit", ["CACHE", "LOGITS"])
@pytest.mark.parametrize(("strategy", "beams"), [("greedy", 1), ("beam", 3)])
def test_as_many_batches_as_fit(
    spare: int,
    together: int,
    limit: str,
    strategy: str,
    beams: int,
    captioner: EncodedCaptioner,
    stage: Evaluate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = stage.data.splits["test"][0]
    decode = replace(captioner.decode, batch_size=5, strategy=strategy, beams=3)
    here = EncodedCaptioner(captioner.model, captioner.tokenizer, captioner.encoded, decode, captioner.device)
    cached = here.model.cache_bytes(here.states([row]), len(here.tokenizer.prompt_tokens) + decode.max_new_tokens)
    each = {"CACHE": cached, "LOGITS": 4 * here.model.config.vocab_size}[limit]
    assert each is not None
    monkeypatch.setattr(under_test, limit, 3 * 5 * beams * each + spare)
    assert here._together(row) == together
    monkeypatch.setattr(here.model, "cache_bytes", lambda *_: None)  # as of a hosted decoder
    assert here._together(row) == 1


def test_rows_are_those_that_were_read(captioner: EncodedCaptioner, stage: Evaluate, tmp_path: Path) -> None:
    rows = stage.data.splits["test"][:4]
    read = captioner.read(references(stage, rows), tmp_path)
    with pytest.raises(ValueError, match="3 rows for 4 captions"):
        captioner.loss(rows[:3], read)
