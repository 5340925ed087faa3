"""Item texts -> a few numbers: hashed TF-IDF and truncated SVD (latent semantic analysis).

Deerwester et al. 1990; the hashing trick, Weinberger et al. 2009. An item that comes later is projected with
the same weights.

Shapes: I items, H buckets, R rank.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actors.features.features import Floats
from actors.features.keys import key
from actors.features.lowrank import truncated_svd

BUCKETS = 1 << 13
BLOCK = 10_000
"""Texts projected at a time, for bounded memory."""
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class TextMap:
    """idf_H weighs the buckets, basis_HR projects them."""

    idf_H: Floats
    basis_HR: Floats

    def vectors(self, texts: Sequence[str]) -> Floats:
        """texts (I) -> vectors_IR; the zero vector for a text without known words. A text has the same one alone."""
        blocks = [self._block(texts[start : start + BLOCK]) for start in range(0, len(texts), BLOCK)]
        return np.concatenate([np.zeros((0, self.basis_HR.shape[1])), *blocks])

    def _block(self, texts: Sequence[str]) -> Floats:
        spelt = [words(text) for text in texts]
        number = {word: bucket(word) for word in set().union(*spelt)}
        text_W = np.repeat(np.arange(len(texts)), [len(own) for own in spelt])
        bucket_W = np.fromiter((number[word] for own in spelt for word in own), np.int64, len(text_W))
        term_E, count_E = np.unique(text_W * BUCKETS + bucket_W, return_counts=True)
        text_E, bucket_E = np.divmod(term_E, BUCKETS)
        weight_E = (1.0 + np.log(count_E)) * self.idf_H[bucket_E]
        length_I = np.sqrt(np.bincount(text_E, weight_E**2, minlength=len(texts)))
        weight_E /= np.where(length_I > 0, length_I, 1.0)[text_E]
        vectors_IR = np.zeros((len(texts), self.basis_HR.shape[1]))
        if len(text_E):
            there, first = np.unique(text_E, return_index=True)
            vectors_IR[there] = np.add.reduceat(weight_E[:, None] * self.basis_HR[bucket_E], first, axis=0)
        return vectors_IR

    def weights(self, text: str) -> tuple[list[int], Floats]:
        """Buckets of a text and their weights (1 + log count)·idf, of length 1 together."""
        counts = Counter(bucket(word) for word in words(text))
        buckets = sorted(counts)
        weights = np.array([1.0 + np.log(counts[b]) for b in buckets]) * self.idf_H[buckets]
        length = float(np.sqrt(weights @ weights))
        return buckets, weights / length if length > 0 else weights


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits."""
    return _WORD.findall(text.lower())


def bucket(word: str) -> int:
    return key(word) % BUCKETS


def fit_text(texts: Sequence[str], rank: int, seed: int) -> TextMap:
    """Weights and projection of a catalogue's texts; idf = log((1 + I)/(1 + df)) + 1 for words that occur."""
    from scipy import sparse

    df_H = np.zeros(BUCKETS)
    for text in texts:
        df_H[list({bucket(word) for word in words(text)})] += 1
    idf_H = np.where(df_H > 0, np.log((1 + len(texts)) / (1 + df_H)) + 1, 0.0)
    plain = TextMap(idf_H, np.zeros((BUCKETS, 0)))
    rows, columns, values = [], [], []
    for i, text in enumerate(texts):
        buckets, weights = plain.weights(text)
        rows += [i] * len(buckets)
        columns += buckets
        values += weights.tolist()
    matrix = sparse.csr_matrix((values, (rows, columns)), shape=(len(texts), BUCKETS))
    _, _, right_RH = truncated_svd(matrix, rank, seed)
    return TextMap(idf_H, np.ascontiguousarray(right_RH.T))
