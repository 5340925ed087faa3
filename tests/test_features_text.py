"""Texts as vectors, against TF-IDF written out."""

import math
from collections import Counter

import numpy as np

from actors.features import text as texts
from actors.features.text import fit_text

TEXTS = ["A red lamp", "", "lamp lamp TEA", "x_y-z red lamp red", "tea for two", "±", "Straße été"]


def test_vectors_are_weighted_words_projected() -> None:
    """(1 + log count)·idf, of length 1 a text, times the basis: word by word, in plain Python."""
    fitted = fit_text(TEXTS, 4, 0)
    found = fitted.vectors([*TEXTS, "never seen"])
    for text, vector in zip([*TEXTS, "never seen"], found, strict=True):
        counts = Counter(texts.bucket(word) for word in texts.words(text))
        weight = {b: (1 + math.log(n)) * float(fitted.idf_H[b]) for b, n in counts.items()}
        length = math.sqrt(sum(w * w for w in weight.values())) or 1.0
        expected = sum((w / length * fitted.basis_HR[b] for b, w in weight.items()), np.zeros(4))
        np.testing.assert_allclose(vector, expected, atol=1e-12)
    assert found[0].any()
    assert not found[1].any()
    assert not found[-1].any()


def test_a_text_has_the_same_vector_alone() -> None:
    fitted = fit_text(TEXTS, 4, 0)
    together = fitted.vectors(TEXTS * 2_000)  # more than one block
    for i, text in enumerate(TEXTS):
        np.testing.assert_array_equal(fitted.vectors([text])[0], together[i])
        np.testing.assert_array_equal(together[i], together[-len(TEXTS) + i])
    assert fitted.vectors([]).shape == (0, 4)
