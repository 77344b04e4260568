"""Several captions of an input, and how one of them is chosen: by likelihood, or by minimum Bayes risk.

Minimum Bayes risk decoding chooses, among captions drawn from the model, the one that is on average most similar to the
others: the caption of highest expected utility under the model (Kumar and Byrne 2004; Eikema and Aziz 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from lockdec.data.tokenizer import Tokenizer
from lockdec.evaluation.configuration import MBR, EvaluateConfig
from lockdec.evaluation.scoring import Candidate, ended_ids
from lockdec.transformer.encoded import Encoded
from lockdec.transformer.models import LockingModel


def candidates(
    model: LockingModel,
    tokenizer: Tokenizer,
    encoded: Encoded,
    decode: EvaluateConfig,
    generator: torch.Generator,
    n: int = 1,
) -> list[list[Candidate]]:
    """At most n different captions of each input, the chosen one first; fewer where no more were found.

    greedy: the greedy caption, then the best others of a beam search. beam: the best of the search. nucleus and top_k:
    n draws, in their order. mbr: `decode.candidates` draws by their expected utility.

    Args:
        encoded: normalised states on the device of the model.
        decode: strategy and lengths.
        generator: RNG of the strategies that draw.
    """
    special = tokenizer.special
    always: dict[str, Any] = {
        "bos_id": special.bos,
        "eos_id": special.eos,
        "pad_id": special.pad,
        "prompt": tokenizer.prompt_tokens,
        "generator": generator,
    }

    def generated(keep: int, **changes: Any) -> list[list[Candidate]]:
        options = decode.generation | changes
        found = model.generate_several(encoded, keep, **always, **options)
        rows = zip(found.tokens.tolist(), found.log_probs.tolist(), strict=True)
        several = [[candidate(ids, total) for ids, total in zip(*row, strict=True)] for row in rows]
        return [[one for one in row if one.log_prob > -math.inf] or row[:1] for row in several]

    def candidate(padded: list[int], log_prob: float) -> Candidate:
        ids = ended_ids(padded, special.eos)
        return Candidate(tokenizer.decode(ids), log_prob, tuple(ids))

    if decode.strategy == MBR:
        drawn = generated(decode.candidates, strategy="nucleus")
        ranked = [by_risk(row, decode.utility) for row in drawn]
    elif decode.strategy == "greedy" and n > 1:
        beams = generated(n, strategy="beam", beams=max(n, decode.beams))
        ranked = [first + others for first, others in zip(generated(1), beams, strict=True)]
    elif decode.strategy == "beam":
        ranked = generated(n, beams=max(n, decode.beams))
    else:
        ranked = generated(n)
    return [_different(row)[:n] for row in ranked]


def expected_utilities(captions: Sequence[str], utility: str) -> list[float]:
    """The mean utility of each caption, measured against all of them, itself included: the same for all."""
    from lockdec.evaluation.metrics import METRICS  # here, since most captioning needs no metric

    metric, once = METRICS[utility], list(dict.fromkeys(captions))
    counts = [captions.count(text) for text in once]
    means = {
        text: sum(n * metric([text], [[other]]) for other, n in zip(once, counts, strict=True)) / len(captions)
        for text in once
    }
    return [means[text] for text in captions]


def by_risk(drawn: Sequence[Candidate], utility: str) -> list[Candidate]:
    """Those of highest mean utility first, measured against all of them; of equals, those drawn first."""
    gains = expected_utilities([caption.text for caption in drawn], utility)
    order = sorted(range(len(drawn)), key=lambda index: -gains[index])
    return [drawn[index] for index in order]


def _different(captions: Sequence[Candidate]) -> list[Candidate]:
    """The first caption of each text."""
    first: dict[str, Candidate] = {}
    for caption in captions:
        first.setdefault(caption.text, caption)
    return list(first.values())
