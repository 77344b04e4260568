"""Caption metrics, each `(candidates, references) -> float`, all over the words of `words`.

| name | range | over several references | over the corpus | source |
|---|---|---|---|---|
| `bleu1`..`bleu4` | 0..1 | largest count, closest length | summed | Papineni et al. 2002, by sacrebleu |
| `rouge_l` | 0..1 | best F1 | mean | Lin 2004 |
| `cider_d` | 0..10 | mean similarity | mean | Vedantam et al. 2015, section 5 |
| `chrf` | 0..100 | best | summed | Popovic 2015, by sacrebleu |
| `token_f1` | 0..1 | best F1 | mean | Rajpurkar et al. 2016 |
| `exact` | 0..1 | any | mean | |
| `distinct` | 0..1 | not used | distinct captions / captions | |

An empty list of captions scores 0 everywhere. A caption without words scores 0, except that it equals a
reference without words (`exact`, `token_f1`, `rouge_l` are 1 there) and counts as one caption in `distinct`.
Every caption needs at least one reference: ValueError otherwise.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

Words = tuple[str, ...]
Metric = Callable[[Sequence[str], Sequence[Sequence[str]]], float]

LOWER_IS_BETTER = frozenset({"loss"})  # among the metrics of result.json

_WORD = re.compile(r"\w+(?:[-'\u2019.]\w+)*")
_CIDER_ORDER = 4
_CIDER_SIGMA = 6.0  # in words: how fast a difference in length is punished


def words(text: str) -> Words:
    """The words of a caption in lower case; -, ' or . between letters does not split (medium-light, 3.5)."""
    return tuple(_WORD.findall(text.lower()))


def bleu1(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU of words, 0..1, unsmoothed, with the brevity penalty."""
    return _bleu(candidates, references, 1)


def bleu2(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU of 1- and 2-grams, 0..1, unsmoothed: 0 when no 2-gram matches anywhere."""
    return _bleu(candidates, references, 2)


def bleu3(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU of 1- to 3-grams, 0..1, unsmoothed: 0 when no 3-gram matches anywhere."""
    return _bleu(candidates, references, 3)


def bleu4(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU of 1- to 4-grams, 0..1, unsmoothed: 0 when no 4-gram matches anywhere."""
    return _bleu(candidates, references, 4)


def rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean F1 of the longest common subsequence of words, 0..1, best over references (COCO: beta 1.2)."""
    return _mean_of_best(candidates, references, _subsequence_f1)


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """CIDEr-D, 0..10. Document frequencies come from these references: only scores on one test set compare.

    An n-gram that every input's references contain weighs nothing, so one input alone always scores 0. A
    caption of fewer than four words lacks the longer n-grams and cannot reach 10.
    """
    pairs = _tokenised(candidates, references)
    counts = [(_ngrams(candidate), [_ngrams(wanted) for wanted in several]) for candidate, several in pairs]
    frequency = Counter(ngram for _, several in counts for ngram in set().union(*several))
    log_inputs = math.log(len(counts)) if counts else 0.0

    def weigh(ngrams: Counter[Words]) -> list[dict[Words, float]]:
        vectors: list[dict[Words, float]] = [{} for _ in range(_CIDER_ORDER)]
        for ngram, count in ngrams.items():
            vectors[len(ngram) - 1][ngram] = count * (log_inputs - math.log(max(1, frequency[ngram])))
        return vectors

    total = 0.0
    for (candidate, several), (candidate_ngrams, several_ngrams) in zip(pairs, counts, strict=True):
        vectors = weigh(candidate_ngrams)
        similarity = sum(
            _clipped_cosine(vectors, weigh(ngrams)) * _length_penalty(len(candidate), len(wanted))
            for wanted, ngrams in zip(several, several_ngrams, strict=True)
        )
        total += 10 * similarity / len(several)
    return total / len(counts) if counts else 0.0


def chrf(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus chrF2 over character 1- to 6-grams of the words, white space left out, 0..100."""
    pairs = _tokenised(candidates, references)
    # Where two references score alike sacrebleu keeps the first: sorting makes the score free of their order.
    return _sacrebleu(CHRF(), [(candidate, sorted(several)) for candidate, several in pairs])


def token_f1(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean F1 of the two multisets of words, 0..1, best over references."""
    return _mean_of_best(candidates, references, _multiset_f1)


def exact(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Share of captions whose words equal a reference's words, in order, 0..1."""
    return _mean_of_best(candidates, references, lambda a, b: float(a == b))


def distinct(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Different captions / captions, 0..1: near 0 for a captioner that gives every input the same caption."""
    pairs = _tokenised(candidates, references)
    return len({candidate for candidate, _ in pairs}) / len(pairs) if pairs else 0.0


METRICS: dict[str, Metric] = {
    metric.__name__: metric
    for metric in (bleu1, bleu2, bleu3, bleu4, rouge_l, cider_d, chrf, token_f1, exact, distinct)
}


def score(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Every metric of this module by its name. ValueError when a caption has no reference."""
    return {name: metric(candidates, references) for name, metric in METRICS.items()}


def _tokenised(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[tuple[Words, list[Words]]]:
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} candidates for {len(references)} lists of references")
    for row, several in enumerate(references):
        if isinstance(several, str) or not several:
            raise ValueError(f"references[{row}]={several!r}: a list of at least one reference is needed")
    return [
        (words(candidate), [words(reference) for reference in several])
        for candidate, several in zip(candidates, references, strict=True)
    ]


def _mean_of_best(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    similarity: Callable[[Words, Words], float],
) -> float:
    pairs = _tokenised(candidates, references)
    best = [max(similarity(candidate, wanted) for wanted in several) for candidate, several in pairs]
    return math.fsum(best) / len(best) if best else 0.0


def _f1(shared: int, candidate_length: int, reference_length: int) -> float:
    length = candidate_length + reference_length
    return 2 * shared / length if length else 1.0


def _multiset_f1(candidate: Words, reference: Words) -> float:
    return _f1((Counter(candidate) & Counter(reference)).total(), len(candidate), len(reference))


def _subsequence_f1(candidate: Words, reference: Words) -> float:
    # One bit for each word of the reference (Hyyro 2004): a bit turns to 0 where the longest common subsequence with
    # the candidate's words read so far grows. 20,000 words take 0.1 s, and a table of all pairs a minute.
    places: dict[str, int] = {}
    for column, word in enumerate(reference):
        places[word] = places.get(word, 0) | 1 << column
    full = (1 << len(reference)) - 1
    row = full
    for word in candidate:
        equal = row & places.get(word, 0)
        row = (row + equal | row - equal) & full
    return _f1(len(reference) - row.bit_count(), len(candidate), len(reference))


def _bleu(candidates: Sequence[str], references: Sequence[Sequence[str]], order: int) -> float:
    bleu = BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, force=True)
    return _sacrebleu(bleu, _tokenised(candidates, references)) / 100


def _sacrebleu(metric: BLEU | CHRF, pairs: Sequence[tuple[Words, Sequence[Words]]]) -> float:
    if not pairs:
        return 0.0
    # sacrebleu wants equally many references everywhere; one reference given twice changes neither metric.
    most = max(len(several) for _, several in pairs)
    streams = [[" ".join(several[min(number, len(several) - 1)]) for _, several in pairs] for number in range(most)]
    value = metric.corpus_score([" ".join(candidate) for candidate, _ in pairs], streams).score
    return min(float(value), 100.0)  # exp(log(100)) is 100.00000000000004


def _ngrams(text: Words) -> Counter[Words]:
    return Counter(
        text[start : start + order] for order in range(1, _CIDER_ORDER + 1) for start in range(len(text) - order + 1)
    )


def _clipped_cosine(candidate: list[dict[Words, float]], reference: list[dict[Words, float]]) -> float:
    """Mean over n of the cosine of weighted n-grams, the candidate's weights clipped to the reference's."""
    total = 0.0
    for ours, theirs in zip(candidate, reference, strict=True):
        norm = math.hypot(*ours.values()) * math.hypot(*theirs.values())
        if norm > 0:
            shared = ours.keys() & theirs.keys()
            total += math.fsum(min(ours[ngram], theirs[ngram]) * theirs[ngram] for ngram in shared) / norm
    return total / _CIDER_ORDER


def _length_penalty(candidate_length: int, reference_length: int) -> float:
    return math.exp(-((candidate_length - reference_length) ** 2) / (2 * _CIDER_SIGMA**2))
