"""Where a captioner attends for each word: against the attention of the model, token by token."""

from __future__ import annotations

import copy

import pytest
import torch

from lockdec.evaluation.attention_maps import attention_maps
from lockdec.evaluation.captioner import EncodedCaptioner

WORDS = "a red flag: a"


def test_a_words_weights_are_the_mean_over_its_tokens_heads_and_layers(captioner: EncodedCaptioner) -> None:
    ((row, found),) = attention_maps(captioner, [3], [WORDS])
    assert (row, found["words"], found["grid"]) == (3, WORDS.split(), [8, 8])
    tokens = captioner.tokenizer.batch([WORDS], captioner.model.config.max_len)
    with torch.no_grad():
        layers = captioner.model.attention_maps(tokens[:, :-1], captioner.states([3]))
    attended = torch.stack([layer.weights[0] for layer in layers]).mean((0, 1))  # (t, s)
    ids = tokens[0, 1:].tolist()
    spans = [len(captioner.tokenizer.encode_batch([" ".join(WORDS.split()[: n + 1])])[0]) for n in range(4)]
    assert ids[spans[-1]] == captioner.tokenizer.special.eos
    for start, end, weights in zip([0, *spans], spans, found["weights"], strict=False):
        assert weights == pytest.approx(attended[start:end].mean(0).tolist(), abs=2e-5)


def test_rows_do_not_depend_on_each_other(captioner: EncodedCaptioner) -> None:
    alone = [attention_maps(captioner, [row], [text])[0] for row, text in ((3, WORDS), (5, "a dog"))]
    together = attention_maps(captioner, [3, 5], [WORDS, "a dog"])
    assert [row for row, _ in together] == [3, 5]
    for (_, one), (_, other) in zip(alone, together, strict=True):
        assert one["words"] == other["words"]
        for weights, others in zip(one["weights"], other["weights"], strict=True):
            assert weights == pytest.approx(others, abs=2e-5)


def test_states_that_are_no_square_have_no_map(captioner: EncodedCaptioner) -> None:
    assert attention_maps(captioner, [], []) == []
    oblong = copy.copy(captioner)
    oblong.encoded = copy.copy(captioner.encoded)
    oblong.encoded.max_states = 60
    assert attention_maps(oblong, [3], [WORDS]) == []
