"""Beam search finds what an exhaustive search finds, where it may follow every sequence."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from lockdec.transformer.decoding.beam import pick
from tests.transformer.tiny_transformers import BOS, EOS, IDS, PAD, captioner, encoded_batch

VOCAB, LONGEST = 5, 4


def every_sequence() -> list[list[int]]:
    """All that end with EOS, or with the last token that there is room for."""
    others = [token for token in range(VOCAB) if token != EOS]
    found: list[list[int]] = []
    for length in range(1, LONGEST + 1):
        last = range(VOCAB) if length == LONGEST else (EOS,)
        found += [[*begun, end] for begun in itertools.product(others, repeat=length - 1) for end in last]
    return found


def test_as_many_beams_as_sequences_find_the_best_of_all() -> None:
    sequences, lengths = every_sequence(), set[int]()
    tokens = torch.tensor([[BOS, *sequence, *[PAD] * (LONGEST - len(sequence))] for sequence in sequences])
    length = torch.tensor([len(sequence) for sequence in sequences])
    real = torch.arange(LONGEST) < length.unsqueeze(1)
    for seed in range(3):
        model, encoded = captioner(seed, vocab_size=VOCAB), encoded_batch(rows=2, seed=seed)
        for row in range(2):
            one = encoded.index(torch.tensor([row]))
            with torch.no_grad():
                gains = model(tokens[:, :-1], one.index(torch.zeros(len(tokens), dtype=torch.long))).log_softmax(-1)
            total = (gains.gather(2, tokens[:, 1:, None]).squeeze(2) * real).sum(1)
            for penalty in (0.0, 1.0, 2.0):
                options: dict[str, Any] = {"strategy": "beam", "beams": 64, "length_penalty": penalty}
                generated = model.generate(one, **IDS, max_new_tokens=LONGEST, **options)
                best = sequences[int((total / length**penalty).argmax())]
                assert generated.tolist() == [best]
                lengths.add(len(best))
    assert len(lengths) > 1, "the cases should differ in when they end"


def test_sequences_are_picked_for_each_input_by_itself() -> None:
    sequences = torch.arange(12).view(2, 3, 2)
    picked = pick(sequences, torch.tensor([[2, 0], [1, 1]]))
    assert picked.tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]
