"""Low-rank maps against whole decompositions, and text vectors by hand."""

import numpy as np
import pytest
from scipy import sparse

from actors.features.lowrank import aligned, principal, truncated_svd
from actors.features.text import bucket, fit_text, words


@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (30, 20), (5, 400)])
def test_svd_against_the_whole_one(shape: tuple[int, int]) -> None:
    """A matrix whose singular values fall by a fifth each: the leading eight agree to 1e-6."""
    rng = np.random.default_rng(0)
    rank = min(shape)
    left, right = (np.linalg.qr(rng.normal(size=(n, rank)))[0] for n in shape)
    matrix = (left * 0.8 ** np.arange(rank)) @ right.T
    u, s, vt = truncated_svd(sparse.csr_matrix(matrix), 8, 0)
    count = min(8, rank)
    np.testing.assert_allclose(s, 0.8 ** np.arange(count), rtol=1e-6)
    np.testing.assert_allclose(u.T @ u, np.eye(count), atol=1e-9)
    best = (left[:, :count] * 0.8 ** np.arange(count)) @ right[:, :count].T
    np.testing.assert_allclose((u * s) @ vt, best, atol=1e-5)
    assert (vt[np.arange(count), np.abs(vt).argmax(axis=1)] > 0).all()


def test_svd_of_little() -> None:
    assert truncated_svd(sparse.csr_matrix((40, 30)), 3, 0)[1].shape == (0,)
    assert truncated_svd(np.zeros((0, 4)), 3, 0)[0].shape == (0, 0)
    one = np.outer(np.arange(100.0), np.arange(80.0))
    left, singular, right = truncated_svd(one, 5, 0)
    assert singular.shape == (1,)
    np.testing.assert_allclose((left * singular) @ right, one, atol=1e-8)


def test_principal_axes_by_hand() -> None:
    """Points on y = 2x: one axis (1, 2)/√5, scaled so that the coordinates have mean square 1."""
    x = np.array([-1.0, 0.0, 1.0])
    mean, projection = principal(np.stack([x + 5, 2 * x], axis=1), 2)
    assert mean.tolist() == [5.0, 0.0]
    assert projection.shape == (2, 1)
    np.testing.assert_allclose((np.stack([x, 2 * x], axis=1) @ projection)[:, 0], x * np.sqrt(1.5))
    assert principal(np.ones((4, 3)), 2)[1].shape == (3, 0)
    weighted, _ = principal(np.array([[0.0], [1.0]]), 1, np.array([1.0, 3.0]))
    assert weighted.tolist() == [0.75]


def test_alignment_undoes_a_rotation() -> None:
    rng = np.random.default_rng(0)
    vectors, rotation = rng.normal(size=(20, 3)), np.linalg.qr(rng.normal(size=(3, 3)))[0]
    np.testing.assert_allclose(aligned(vectors @ rotation, vectors), vectors, atol=1e-12)


def test_text_weights_by_hand() -> None:
    """Two of three titles have `red`: idf log(4/3) + 1; `lamp` has log(4/2) + 1; twice counts 1 + log 2."""
    assert words("Red-hot LAMP_2, 2x") == ["red", "hot", "lamp", "2", "2x"]
    text = fit_text(["red lamp", "red box", ""], 2, 0)
    assert text.idf_H[bucket("red")] == pytest.approx(np.log(4 / 3) + 1)
    buckets, weights = text.weights("lamp red lamp unheard")
    by_word = {w: weights[buckets.index(bucket(w))] for w in ("red", "lamp", "unheard")}
    red, lamp = np.log(4 / 3) + 1, (np.log(2) + 1) * (1 + np.log(2))
    assert by_word["red"] == pytest.approx(red / np.hypot(red, lamp))
    assert by_word["lamp"] == pytest.approx(lamp / np.hypot(red, lamp))
    assert by_word["unheard"] == 0.0


def test_text_vectors_keep_cosines_at_full_rank() -> None:
    titles = ["red lamp", "red box", "blue box", "green tea cup"]
    text = fit_text(titles, 4, 0)
    vectors = text.vectors([*titles, "", "nothing known"])
    assert vectors[0] @ vectors[1] == pytest.approx((np.log(5 / 3) + 1) ** 2 / np.prod([
        np.hypot(np.log(5 / 3) + 1, np.log(5 / 2) + 1), np.hypot(np.log(5 / 3) + 1, np.log(5 / 3) + 1)
    ]))  # fmt: skip
    assert vectors[0] @ vectors[3] == pytest.approx(0, abs=1e-12)
    assert not vectors[4:].any()
