"""The nearest phrase: the one that a captioner or translator would copy if it knew only the support texts.

Similarity is the cosine of TF-IDF vectors of character 1- to 5-grams, spaces included: parts of words count, and rare
parts count more. Of equally similar phrases the first is taken.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

_ORDER = 5
_CHUNK = 512  # queries compared at a time


def nearest_phrases(queries: Sequence[str], phrases: Sequence[str]) -> list[int]:
    """For each query, the index of the nearest phrase; `phrases` must not be empty."""
    from scipy.sparse import csr_matrix  # here, since a dry run compares no phrases

    grams = [_grams(phrase) for phrase in phrases]
    frequency = Counter(gram for counted in grams for gram in counted)
    columns = {gram: column for column, gram in enumerate(frequency)}
    rarity = {gram: 1 + math.log(len(phrases) / count) for gram, count in frequency.items()}

    def vectors(counted: Sequence[Counter[str]]) -> csr_matrix:
        rows: list[int] = []
        places: list[int] = []
        values: list[float] = []
        for row, counts in enumerate(counted):
            weights = {columns[gram]: n * rarity[gram] for gram, n in counts.items() if gram in columns}
            norm = math.hypot(*weights.values()) or 1.0
            rows += [row] * len(weights)
            places += weights
            values += [weight / norm for weight in weights.values()]
        return csr_matrix((values, (rows, places)), shape=(len(counted), len(columns)))

    known = vectors(grams).T.tocsr()
    found: list[int] = []
    for start in range(0, len(queries), _CHUNK):
        chunk = vectors([_grams(query) for query in queries[start : start + _CHUNK]])
        found += np.asarray((chunk @ known).todense()).argmax(axis=1).tolist()
    return found


def _grams(text: str) -> Counter[str]:
    padded = f" {text} "
    return Counter(
        padded[start : start + size] for size in range(1, _ORDER + 1) for start in range(len(padded) - size + 1)
    )
