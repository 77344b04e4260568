"""Caption metrics, each `(candidates, references) -> float`, all over the words of `words`.

| name | range | over several references | over the corpus | source |
|---|---|---|---|---|
| `bleu1`..`bleu4` | 0..1 | largest count, closest length | summed | Papineni et al. 2002, by sacrebleu |
| `rouge_l` | 0..1 | best precision, best recall | mean | Lin 2004, as COCO's scorer has it (beta 1.2) |
| `cider_d` | 0..10 | mean similarity | mean | Vedantam et al. 2015, section 5 |
| `chrf` | 0..100 | best | summed | Popovic 2015, by sacrebleu |
| `token_f1` | 0..1 | best F1 | mean | Rajpurkar et al. 2016 |
| `exact` | 0..1 | any | mean | |
| `distinct` | 0..1 | not used | distinct captions / captions | |

On the same words, BLEU, ROUGE-L and CIDEr-D are those of pycocoevalcap, the scorer of COCO.

An empty list of captions scores 0 everywhere. A caption without words scores 0, except that it equals a
reference without words (`exact`, `token_f1`, `rouge_l` are 1 there) and counts as one caption in `distinct`.
Every caption needs at least one reference: ValueError otherwise.

To score several lists of captions against the same references, pass the same `References` each time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

import regex
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from lockdec.data.captions import fold

Words = tuple[str, ...]
Metric = Callable[[Sequence[str], Sequence[Sequence[str]]], float]

LOWER_IS_BETTER = frozenset({"loss"})  # among the metrics of result.json

# Scripts that are written without blanks between words: each of their letters is a word, together with its marks.
_BLANKLESS = r"[[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc\uff70]&&\p{L}]"
_LETTERS = rf"[[\p{{L}}\p{{M}}\p{{N}}_]--{_BLANKLESS}]+"
_SKIN_TONE, _REGION = r"\U0001F3FB-\U0001F3FF", r"[\U0001F1E6-\U0001F1FF]"
# Unassigned characters are most often emoji that are newer than the tables of this Python.
_SYMBOL = rf"[\p{{So}}\p{{Sm}}\p{{Sc}}\p{{Co}}\p{{Cn}}{_SKIN_TONE}]"
_PICTURE = rf"{_SYMBOL}[\p{{M}}{_SKIN_TONE}\U000E0020-\U000E007F]*"
_WORD = regex.compile(
    rf"(?V1){_REGION}{{2}}|{_PICTURE}(?:\u200d{_PICTURE})*|{_BLANKLESS}\p{{M}}*"
    rf"|{_LETTERS}(?:[-'\u2019.\u200c\u200d]{_LETTERS})*"
)
_PRESENTATION = str.maketrans("", "", "\ufe0e\ufe0f")  # whether a symbol is drawn as text or as a picture

ONE_INPUT = "CIDEr-D is 0 for any caption: its document frequencies need more than one input"
_ORDER = 4  # the longest n-gram of BLEU and CIDEr-D
_CIDER_SIGMA = 6.0  # in words: how fast a difference in length is punished
_ROUGE_BETA = 1.2  # how much more recall counts than precision


def words(text: str) -> Words:
    """The words of a text in NFC and lower case.

    A word is a run of letters, marks and digits; -, ' or . between letters does not split (medium-light, 3.5). A
    symbol is a word of its own, and so is an emoji with its skin tone and all that is joined to it, or the flag of a
    country. Chinese, Japanese, Thai, Lao, Khmer and Burmese are written without blanks: each letter with its marks
    is a word. Punctuation is dropped.
    """
    return tuple(_WORD.findall(fold(text).translate(_PRESENTATION)))


class References(tuple[tuple[str, ...], ...]):
    """The references of each input; what metrics need of them is computed once, when it is first needed.

    Raises:
        ValueError: an input has no reference.
    """

    def __new__(cls, references: Iterable[Sequence[str]]) -> References:
        lists = list(references)
        for row, several in enumerate(lists):
            if isinstance(several, str) or not several:
                raise ValueError(f"references[{row}]={several!r}: a list of at least one reference is needed")
        return super().__new__(cls, map(tuple, lists))

    @cached_property
    def words(self) -> list[list[Words]]:
        """Of each reference of each input."""
        return [[words(reference) for reference in several] for several in self]

    @cached_property
    def bleu(self) -> BLEU:
        """sacrebleu's, with the n-grams of the references."""
        streams = _streams(self.words)
        return BLEU(tokenize="none", smooth_method="none", max_ngram_order=_ORDER, force=True, references=streams)

    @cached_property
    def chrf(self) -> CHRF:
        """sacrebleu's, with the n-grams of the references."""
        # Where two references score alike sacrebleu keeps the first: sorting makes the score free of their order.
        return CHRF(references=_streams([sorted(set(several)) for several in self.words]))

    @cached_property
    def cider(self) -> CiderWeights:
        """The weights of n-grams, and the weighted n-grams of the references."""
        return CiderWeights(self.words)


class Corpus(tuple[str, ...]):
    """Captions beside their references; what several metrics need of them is computed once.

    Raises:
        ValueError: there are not as many captions as lists of references, or an input has no reference.
    """

    references: References

    def __new__(cls, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Corpus:
        if isinstance(candidates, Corpus) and candidates.references is references:
            return candidates
        if len(candidates) != len(references):
            raise ValueError(f"{len(candidates)} candidates for {len(references)} lists of references")
        corpus = super().__new__(cls, candidates)
        corpus.references = references if isinstance(references, References) else References(references)
        return corpus

    @cached_property
    def words(self) -> list[Words]:
        """Of each caption."""
        known = {text: words(text) for text in set(self)}
        return [known[text] for text in self]

    @property
    def pairs(self) -> list[tuple[Words, list[Words]]]:
        """The words of each caption and of each of its references."""
        return list(zip(self.words, self.references.words, strict=True))

    @cached_property
    def bleu(self) -> list[float]:
        """BLEU of 1- to n-grams for each n up to 4, from one count of the n-grams."""
        if not self:
            return [0.0] * _ORDER
        counted = self.references.bleu.corpus_score(_lines(self.words), None)
        return _bleus(counted.sys_len, counted.ref_len, counted.counts, counted.totals)


class CiderWeights:
    """TF-IDF vectors of n-grams of CIDEr-D, for references.

    Args:
        references: the words of each reference of each input.
    """

    def __init__(self, references: Sequence[Sequence[Words]]) -> None:
        counts = [[_ngrams(wanted) for wanted in several] for several in references]
        self._frequency = Counter(ngram for several in counts for ngram in set().union(*several))
        self._log_inputs = math.log(len(references)) if references else 0.0
        self._rarity = {ngram: self._log_inputs - math.log(count) for ngram, count in self._frequency.items()}
        self.vectors = [[self._weigh(ngrams) for ngrams in several] for several in counts]

    def vector(self, text: Words) -> CiderVector:
        """Of one caption."""
        return self._weigh(_ngrams(text))

    def _weigh(self, ngrams: Counter[Words]) -> CiderVector:
        weights: list[dict[Words, float]] = [{} for _ in range(_ORDER)]
        for ngram, count in ngrams.items():
            weights[len(ngram) - 1][ngram] = count * self._rarity.get(ngram, self._log_inputs)
        return [(weighted, math.hypot(*weighted.values())) for weighted in weights]


CiderVector = list[tuple[dict[Words, float], float]]
"""For n-grams of each length: their weights, and the Euclidean norm of these."""


def bleu1(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU of words, 0..1, unsmoothed, with the brevity penalty."""
    return Corpus(candidates, references).bleu[0]


def bleu2(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU of 1- and 2-grams, 0..1, unsmoothed: 0 when no 2-gram matches anywhere."""
    return Corpus(candidates, references).bleu[1]


def bleu3(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU of 1- to 3-grams, 0..1, unsmoothed: 0 when no 3-gram matches anywhere."""
    return Corpus(candidates, references).bleu[2]


def bleu4(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU of 1- to 4-grams, 0..1, unsmoothed: 0 when no 4-gram matches anywhere."""
    return Corpus(candidates, references).bleu[3]


def rouge_l(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean F of the longest common subsequence of words, 0..1.

    As in COCO's scorer, F is of the best precision and the best recall over the references, with beta 1.2.
    """
    return _mean(_rouge_ls(Corpus(candidates, references)))


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """CIDEr-D, 0..10. Document frequencies come from these references: only scores on one test set compare.

    An n-gram that every input's references contain weighs nothing, so one input alone always scores 0. A
    caption of fewer than four words lacks the longer n-grams and cannot reach 10.
    """
    return _mean(_cider_ds(Corpus(candidates, references)))


def chrf(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus chrF2 over character 1- to 6-grams of the words, white space left out, 0..100."""
    corpus = Corpus(candidates, references)
    if not corpus:
        return 0.0
    return min(float(corpus.references.chrf.corpus_score(_lines(corpus.words), None).score), 100.0)


def token_f1(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean F1 of the two multisets of words, 0..1, best over references."""
    return _mean(_token_f1s(Corpus(candidates, references)))


def exact(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Share of captions whose words equal a reference's words, in order, 0..1."""
    return _mean(_exacts(Corpus(candidates, references)))


def distinct(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Different captions / captions, 0..1: near 0 for a captioner that gives every input the same caption."""
    corpus = Corpus(candidates, references)
    return len(set(corpus.words)) / len(corpus) if corpus else 0.0


METRICS: dict[str, Metric] = {
    metric.__name__: metric
    for metric in (bleu1, bleu2, bleu3, bleu4, rouge_l, cider_d, chrf, token_f1, exact, distinct)
}


def score(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Every metric of this module by its name. ValueError when a caption has no reference."""
    corpus = Corpus(candidates, references)
    return {name: metric(corpus, corpus.references) for name, metric in METRICS.items()}


def score_without_each(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, list[float]]:
    """Every metric but `distinct`, by its name: what it would be without each of the inputs, in their order.

    How much these differ gives the standard error of a metric over inputs, that of a corpus metric, too, which is not
    a mean (the jackknife: Efron and Tibshirani 1993, chapter 11). The document frequencies of CIDEr-D stay those of all
    references.

    Raises:
        ValueError: there are fewer than two captions, or one has no reference.
    """
    corpus = Corpus(candidates, references)
    if len(corpus) < 2:
        raise ValueError(f"{len(corpus)} candidates: without one of them, at least one has to be left")
    found = {}
    for name, values in (
        ("rouge_l", _rouge_ls(corpus)),
        ("cider_d", _cider_ds(corpus)),
        ("token_f1", _token_f1s(corpus)),
        ("exact", _exacts(corpus)),
    ):
        total = math.fsum(values)
        found[name] = [(total - value) / (len(values) - 1) for value in values]
    counted = corpus.references.bleu._extract_corpus_statistics(_lines(corpus.words), None)
    scores = [_bleus(rest[0], rest[1], rest[2 : 2 + _ORDER], rest[2 + _ORDER :]) for rest in _without_each(counted)]
    found |= {f"bleu{order}": [several[order - 1] for several in scores] for order in range(1, _ORDER + 1)}
    matched = corpus.references.chrf._extract_corpus_statistics(_lines(corpus.words), None)
    found["chrf"] = [min(corpus.references.chrf._compute_f_score(rest), 100.0) for rest in _without_each(matched)]
    return found


def _without_each(rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """The sums of the columns over all rows but one, for each row."""
    totals = [sum(column) for column in zip(*rows, strict=True)]
    for row in rows:
        yield [total - value for total, value in zip(totals, row, strict=True)]


def _bleus(length: int, wanted_length: int, matches: list[int], ngrams: list[int]) -> list[float]:
    """BLEU of 1- to n-grams for each n up to 4, from counts over a corpus."""
    several = [
        BLEU.compute_bleu(matches[:order], ngrams[:order], length, wanted_length, max_ngram_order=order)
        for order in range(1, _ORDER + 1)
    ]
    return [min(float(one.score) / 100, 1.0) for one in several]  # exp(log(100)) is 100.00000000000004


def _rouge_ls(corpus: Corpus) -> list[float]:
    return [_rouge_l(candidate, several) for candidate, several in corpus.pairs]


def _cider_ds(corpus: Corpus) -> list[float]:
    weights = corpus.references.cider
    scores = []
    for (candidate, several), vectors in zip(corpus.pairs, weights.vectors, strict=True):
        own = weights.vector(candidate)
        similarity = sum(
            _clipped_cosine(own, vector) * _length_penalty(len(candidate), len(wanted))
            for wanted, vector in zip(several, vectors, strict=True)
        )
        scores.append(10 * similarity / len(several))
    return scores


def _token_f1s(corpus: Corpus) -> list[float]:
    return [max(_multiset_f1(candidate, wanted) for wanted in several) for candidate, several in corpus.pairs]


def _exacts(corpus: Corpus) -> list[float]:
    return [float(candidate in several) for candidate, several in corpus.pairs]


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found) if found else 0.0


def _lines(texts: Iterable[Words]) -> list[str]:
    return [" ".join(text) for text in texts]


def _streams(references: Sequence[Sequence[Words]]) -> list[list[str]]:
    """The first reference of each input, the second, and so on, as sacrebleu takes them."""
    # It wants equally many of each; one reference given twice changes neither metric.
    most = max(map(len, references), default=1)
    return [_lines(several[min(place, len(several) - 1)] for several in references) for place in range(most)]


def _multiset_f1(candidate: Words, reference: Words) -> float:
    length = len(candidate) + len(reference)
    return 2 * (Counter(candidate) & Counter(reference)).total() / length if length else 1.0


def _rouge_l(candidate: Words, several: Sequence[Words]) -> float:
    if not candidate:
        return float(candidate in several)
    shared = [_common_subsequence(candidate, wanted) for wanted in several]
    precision = max(shared) / len(candidate)
    recall = max(common / max(1, len(wanted)) for common, wanted in zip(shared, several, strict=True))
    if not precision:
        return 0.0
    return (1 + _ROUGE_BETA**2) * precision * recall / (recall + _ROUGE_BETA**2 * precision)


def _common_subsequence(candidate: Words, reference: Words) -> int:
    """How many words the longest common subsequence has."""
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
    return len(reference) - row.bit_count()


def _ngrams(text: Words) -> Counter[Words]:
    return Counter(
        text[start : start + order] for order in range(1, _ORDER + 1) for start in range(len(text) - order + 1)
    )


def _clipped_cosine(candidate: CiderVector, reference: CiderVector) -> float:
    """Mean over n of the cosine of weighted n-grams, the candidate's weights clipped to the reference's."""
    total = 0.0
    for (ours, our_norm), (theirs, their_norm) in zip(candidate, reference, strict=True):
        if our_norm and their_norm:
            shared = ours.keys() & theirs.keys()
            total += math.fsum(min(ours[ngram], theirs[ngram]) * theirs[ngram] for ngram in shared) / (
                our_norm * their_norm
            )
    return total / _ORDER


def _length_penalty(candidate_length: int, reference_length: int) -> float:
    return math.exp(-((candidate_length - reference_length) ** 2) / (2 * _CIDER_SIGMA**2))
